//! `volley store`: for stores that no engine serves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};
use volley::admin::inspect::{Progress, Replay};
use volley::base::surface::Location;
use volley::base::time::UnixMillis;
use volley::io::clock::Clock;
use volley::io::store::{
    DamagePolicy, JournalOptions, Recovery, Rewriter, Survey, View, block_on, survey,
};
use volley::store::index::Fate;
use volley::store::op::{Deposit, DepositFlags, Mark, Part};
use volley::store::parts::{HEAD_BYTES_MAX, Manifest, PART_BYTES, PARTS_MAX, write_manifest};
use volley::store::record::{self, Record};

use super::{complain, print};

/// The store is damaged, or its books do not balance.
const DAMAGED: u8 = 3;
/// Messages that are read and written again together.
const GROUP: usize = 512;
/// Parts of a large message that are read and written again together: half a mebibyte.
const PARTS_GROUP: usize = 8;

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub(super) struct Store {
    #[command(subcommand)]
    verb: Verb,
    /// The store's directory (`store.dir`), or that of one shard in it.
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        default_value = "/var/lib/volley"
    )]
    dir: PathBuf,
    /// Results as JSON, a line per shard.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What is in it: messages, users, octets, segments, books.
    #[command(after_help = "Example:\n  volley store stats --dir /var/lib/volley")]
    Stats,
    /// Read every record, check every sum, compare the checkpoint, balance the books.
    #[command(after_help = "Example:\n  volley store verify --dir /var/lib/volley && echo whole")]
    Verify,
    /// Pending messages as JSON lines on standard output; of a large one first its parts.
    #[command(after_help = "Example:\n  volley store export --dir /var/lib/volley > pending.jsonl")]
    Export,
    /// Add messages from JSON lines, as `export` writes them; those that are there already are
    /// passed over.
    #[command(after_help = "Example:\n  volley store import --dir /var/lib/volley pending.jsonl")]
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// The shard whose directory gets them.
        #[arg(long, default_value_t = 0)]
        shard: u32,
    },
    /// Write what is pending anew and remove everything else. Needs room for what is pending.
    #[command(after_help = "Example:\n  volley store compact --dir /var/lib/volley")]
    Compact,
}

type Outcome = Result<bool, String>;

impl Store {
    pub(super) fn main(&self) -> ExitCode {
        match self.run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(DAMAGED),
            Err(reason) => {
                complain(&reason);
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self) -> Outcome {
        if let Verb::Import { file, shard } = &self.verb {
            let place = absolute(&self.dir)?.join(format!("shard-{shard:03}"));
            return self.import(&place, *shard, file);
        }
        let mut fine = true;
        for (place, shard) in shards(&absolute(&self.dir)?)? {
            fine &= match &self.verb {
                Verb::Stats => self.stats(&place, shard)?,
                Verb::Verify => self.verify(&place, shard)?,
                Verb::Export => export(&place, shard)?,
                Verb::Compact => self.compact(&place, shard)?,
                Verb::Import { .. } => true,
            };
        }
        Ok(fine)
    }

    fn stats(&self, place: &Path, shard: u32) -> Outcome {
        let (replay, survey) = look(place, shard, View::Checkpoint)?;
        let disk: u64 = survey.segments.iter().map(|segment| segment.bytes).sum();
        let free: u64 = survey.free.iter().map(|file| file.bytes).sum();
        let live: u64 = replay.live_bytes().values().sum();
        let pending = replay.held.len() as u64;
        let now_s = u32::try_from(Clock.wall().as_secs()).unwrap_or(u32::MAX);
        let overdue = replay.held.values().filter(|held| held.expires_s <= now_s);
        let ledger = replay.ledger;
        self.show(&json!({
            "store": place,
            "shard": shard,
            "format": survey.format,
            "pending_messages": pending,
            "users": replay.users(),
            "body_bytes": replay.bytes(),
            "overdue_messages": overdue.count(),
            "segments": survey.segments.len(),
            "segment_bytes": disk,
            "free_segments": survey.free.len(),
            "free_segment_bytes": free,
            "live_record_bytes": live,
            "disk_bytes_per_message": disk.checked_div(pending).unwrap_or(0),
            "checkpoint_bytes": survey.checkpoint_bytes,
            "records_behind_checkpoint": survey.recovered.records,
            "epoch": survey.recovered.epoch,
            "ledger": books(&replay),
            "deposited_ever": ledger.deposited,
        }));
        Ok(true)
    }

    fn verify(&self, place: &Path, shard: u32) -> Outcome {
        let (all, survey) = look(place, shard, View::Records)?;
        let (start, by_start) = look(place, shard, View::Checkpoint)?;
        let differs = all.differs(&start);
        let found = &survey.recovered;
        let damaged: Vec<Value> = found
            .damaged
            .iter()
            .map(|at| json!({ "segment": at.segment, "offset": at.offset }))
            .collect();
        let unreadable = all.unreadable;
        let refused = by_start.recovered.checkpoint_refused;
        let fine = found.damaged_places == 0
            && unreadable == 0
            && differs.is_empty()
            && !refused
            && all.balances()
            && start.balances();
        self.show(&json!({
            "store": place,
            "shard": shard,
            "fine": fine,
            "records": found.records,
            "record_bytes": found.bytes,
            "deposits": all.deposits,
            "marks": all.marks,
            "segments": found.segments,
            "torn_tail": found.torn.map(|at| json!({ "segment": at.segment, "offset": at.offset })),
            "damaged_places": found.damaged_places,
            "damaged": damaged,
            "unreadable_records": unreadable,
            "checkpoint_bytes": survey.checkpoint_bytes,
            "checkpoint_unusable": refused,
            "checkpoint_differs": differs,
            "ledger": books(&start),
            "ledger_of_records": books(&all),
        }));
        Ok(fine)
    }

    fn import(&self, place: &Path, shard: u32, file: &Path) -> Outcome {
        let lines: Box<dyn BufRead> = if file == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let opened = File::open(file);
            let opened = opened.map_err(|error| format!("{}: {error}", file.display()))?;
            Box::new(BufReader::new(opened))
        };
        let name = file.display().to_string();
        let directory = place.to_owned();
        let work = async move { import(&directory, shard, lines, &name).await };
        let (added, present) = block_on(work)??;
        self.show(&json!({
            "store": place,
            "shard": shard,
            "imported": added,
            "already_there": present,
        }));
        Ok(true)
    }

    fn compact(&self, place: &Path, shard: u32) -> Outcome {
        let before = disk_bytes(place);
        let directory = place.to_owned();
        let moved = block_on(async move { compact(&directory, shard).await })??;
        self.show(&json!({
            "store": place,
            "shard": shard,
            "messages": moved,
            "bytes_before": before,
            "bytes_after": disk_bytes(place),
        }));
        Ok(true)
    }

    /// One shard's result: a JSON line, or a line per fact.
    fn show(&self, value: &Value) {
        if self.json {
            return print(&format!("{value}\n"));
        }
        let mut text = String::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            let key = key.replace('_', " ");
            let value = match value {
                Value::String(value) => value.clone(),
                Value::Array(_)
                | Value::Bool(_)
                | Value::Null
                | Value::Number(_)
                | Value::Object(_) => value.to_string(),
            };
            text.push_str(&format!("{key:<28} {value}\n"));
        }
        print(&text);
    }
}

fn books(replay: &Replay) -> Value {
    let ledger = replay.ledger;
    json!({
        "deposited": ledger.deposited,
        "delivered": ledger.delivered,
        "expired": ledger.expired,
        "purged": ledger.purged,
        "rejected": ledger.rejected,
        "pending": replay.held.len(),
        "balances": replay.balances(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The shards of a store, or the one shard that `dir` is.
fn shards(dir: &Path) -> Result<Vec<(PathBuf, u32)>, String> {
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("shard-")?.parse().ok()
    };
    if dir.join("FORMAT").exists() {
        return Ok(vec![(dir.to_owned(), number(dir).unwrap_or(0))]);
    }
    let entries = std::fs::read_dir(dir);
    let entries = entries.map_err(|error| {
        format!(
            "{}: {error}; name the store's directory with --dir",
            dir.display()
        )
    })?;
    let mut found: Vec<(PathBuf, u32)> = entries
        .map_while(Result::ok)
        .filter_map(|entry| Some((entry.path(), number(&entry.path())?)))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(format!(
            "{} holds no store of volley (no shard-000); name the store's directory with --dir",
            dir.display()
        ));
    }
    Ok(found)
}

fn disk_bytes(place: &Path) -> u64 {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let lengths = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    lengths.sum()
}

/// Draws progress on a terminal, nothing elsewhere.
fn progress() -> Option<Progress> {
    fn show(segment: u32) {
        let _ = write!(io::stderr(), "\r  segment {segment} ");
    }
    io::stderr().is_terminal().then_some(Progress(show))
}

fn look(place: &Path, shard: u32, view: View) -> Result<(Replay, Survey), String> {
    let directory = place.to_owned();
    let result = block_on(async move {
        let mut replay = Replay::watched(progress());
        let survey = survey(&directory, shard, view, &mut replay).await;
        survey.map(|survey| (replay, survey))
    })?;
    if progress().is_some() {
        let _ = write!(io::stderr(), "\r{:30}\r", "");
    }
    result.map_err(|error| error.to_string())
}

/// Writes pending deposits as they come by.
struct Exporter {
    replay: Replay,
    out: BufWriter<io::Stdout>,
    failed: Option<io::Error>,
}

impl Recovery for Exporter {
    fn record(&mut self, at: Location, payload: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let line = match record::decode(payload) {
            Ok(Record::Deposit(deposit)) => {
                let held = self.replay.held.get(&deposit.number);
                held.filter(|held| held.at == at)
                    .map(|held| to_json(&deposit, &held.devices))
            }
            // Parts lie before the deposit that lists them, so their lines come first.
            Ok(Record::Part(part)) => {
                let held = self.replay.held.get(&part.number);
                let place = held.and_then(|held| held.parts.get(part.index as usize));
                place.filter(|place| **place == at).map(|_| {
                    json!({
                        "part_of": part.number,
                        "index": part.index,
                        "bytes": text(part.bytes),
                    })
                })
            }
            Ok(Record::Mark(_)) | Err(_) => None,
        };
        if let Some(line) = line {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }
}

fn export(place: &Path, shard: u32) -> Outcome {
    let (replay, first) = look(place, shard, View::Records)?;
    let directory = place.to_owned();
    let failed = block_on(async move {
        let mut exporter = Exporter {
            replay,
            out: BufWriter::new(io::stdout()),
            failed: None,
        };
        let result = survey(&directory, shard, View::Records, &mut exporter).await;
        let flushed = exporter.out.flush();
        result.map(|_| exporter.failed.or_else(|| flushed.err()))
    })?
    .map_err(|error| error.to_string())?;
    match failed {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Some(error) => Err(format!("standard output: {error}")),
        None => Ok(first.recovered.damaged_places == 0),
    }
}

/// Text as it is, anything else in hexadecimal.
fn text(bytes: &[u8]) -> Value {
    match core::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Object(object) => {
            let hex = object.get("hex")?.as_str()?;
            let digits = hex.as_bytes().chunks(2);
            digits
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
                .collect()
        }
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) => None,
    }
}

fn to_json(deposit: &Deposit<'_>, devices: &[(u64, Fate)]) -> Value {
    let list = |wanted: Fate| -> Vec<String> {
        let fits = devices.iter().filter(|(_, fate)| *fate == wanted);
        fits.map(|(device, _)| format!("{device:016x}")).collect()
    };
    let mut line = json!({
        "number": deposit.number,
        "user": text(deposit.user),
        "identity": text(deposit.identity),
        "received_ms": deposit.received.0,
        "expires_ms": deposit.expires.0,
        "flags": deposit.flags.without(DepositFlags::COPY).bits(),
        "sender": text(deposit.sender),
        "imdn_message_id": text(deposit.imdn_message_id),
        "conversation_id": text(deposit.conversation_id),
        "contribution_id": text(deposit.contribution_id),
        "related_icid": text(deposit.related_icid),
        "lines": text(deposit.lines),
        "in_reply_to": text(deposit.in_reply_to),
        "target_instance": format!("{:016x}", deposit.target_instance),
        "content_type": text(deposit.content_type),
        "delivered_to": list(Fate::Delivered),
        "refused_by": list(Fate::Refused),
    });
    match deposit.parts() {
        None => line["cpim"] = text(deposit.cpim),
        Some(list) => {
            line["parts"] = json!(list.places().count());
            line["total"] = json!(list.total);
            line["head"] = text(list.head);
        }
    }
    line
}

/// Parts that were imported and whose message has not come yet, by its number: 12 octets each.
type Waiting = BTreeMap<u64, Vec<Location>>;

/// A line of an exported part: the number of its message, its index, its record.
fn part_from(value: &Value) -> Option<(u64, u32, Vec<u8>)> {
    let number = value.get("part_of")?.as_u64()?;
    let index = u32::try_from(value.get("index")?.as_u64()?).ok()?;
    let octets = bytes(value.get("bytes")?)?;
    if octets.is_empty() || octets.len() > PART_BYTES || index as usize >= PARTS_MAX {
        return None;
    }
    let part = Part {
        number,
        index,
        bytes: &octets,
    };
    let mut out = Vec::with_capacity(octets.len() + 64);
    record::encode_part(&part, &mut out);
    Some((number, index, out))
}

/// What an exported message has in place of a body when it lies in parts, which are here at `places`.
fn list_from(value: &Value, places: &[Location]) -> Option<Vec<u8>> {
    let (total, head) = (value.get("total")?.as_u64()?, bytes(value.get("head")?)?);
    if head.len() > HEAD_BYTES_MAX || value.get("parts")?.as_u64()? != places.len() as u64 {
        return None;
    }
    let mut out = Vec::new();
    write_manifest(total, &head, places, &mut out);
    Manifest::read(&out).is_some().then_some(out)
}

/// Payloads of one exported message: the deposit, then its marks. Its parts, if it has any, lie at
/// `places`.
fn from_json(value: &Value, places: &[Location]) -> Option<(u64, Vec<Vec<u8>>)> {
    let field = |name: &str| bytes(value.get(name)?);
    let number = |name: &str| value.get(name)?.as_u64();
    let key = |value: &Value| u64::from_str_radix(value.as_str()?, 16).ok();
    let user = field("user")?;
    let (identity, sender) = (field("identity")?, field("sender")?);
    let (message_id, conversation) = (field("imdn_message_id")?, field("conversation_id")?);
    let (contribution, in_reply_to) = (field("contribution_id")?, field("in_reply_to")?);
    let content_type = field("content_type")?;
    let (related_icid, lines) = (field("related_icid")?, field("lines")?);
    let flags = DepositFlags::from_bits(u8::try_from(number("flags")?).ok()?)?;
    let cpim = if flags.contains(DepositFlags::LARGE_MODE) {
        list_from(value, places)?
    } else {
        field("cpim")?
    };
    let deposit = Deposit {
        user: &user,
        identity: &identity,
        number: number("number")?,
        received: UnixMillis(number("received_ms")?),
        expires: UnixMillis(number("expires_ms")?),
        flags,
        sender: &sender,
        imdn_message_id: &message_id,
        conversation_id: &conversation,
        contribution_id: &contribution,
        in_reply_to: &in_reply_to,
        target_instance: key(value.get("target_instance")?)?,
        content_type: &content_type,
        cpim: &cpim,
        related_icid: &related_icid,
        lines: &lines,
    };
    let mut payloads = vec![Vec::new()];
    record::encode_deposit(&deposit, &mut payloads[0]).ok()?;
    let lists = [
        ("delivered_to", Fate::Delivered),
        ("refused_by", Fate::Refused),
    ];
    for (name, fate) in lists {
        for device in value.get(name)?.as_array()? {
            let mark = mark(
                &user,
                deposit.number,
                (key(device)?, fate),
                deposit.received,
            );
            payloads.push(mark?);
        }
    }
    Some((deposit.number, payloads))
}

fn mark(user: &[u8], number: u64, what: (u64, Fate), at: UnixMillis) -> Option<Vec<u8>> {
    let (device, fate) = what;
    let kind = fate.again(device);
    let mark = Mark {
        user,
        number,
        at,
        kind,
    };
    let mut out = Vec::new();
    record::encode_mark(&mark, &mut out).ok()?;
    Some(out)
}

fn options(shard: u32) -> JournalOptions {
    JournalOptions {
        shard,
        on_damage: DamagePolicy::Refuse,
        ..JournalOptions::default()
    }
}

async fn import(
    place: &Path,
    shard: u32,
    lines: Box<dyn BufRead>,
    name: &str,
) -> Result<(u64, u64), String> {
    let mut replay = Replay::default();
    let opened = Rewriter::open(place, &options(shard), &mut replay).await;
    let mut writer = opened.map_err(|error| error.to_string())?;
    let (mut added, mut present) = (0, 0);
    let mut waiting = Waiting::new();
    for (index, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| format!("{name}: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let refused = || {
            format!(
                "{name}:{}: not a message as `volley store export` writes it; what came before is \
                 imported",
                index + 1
            )
        };
        let value: Value = serde_json::from_str(&line).map_err(|_| refused())?;
        if value.get("part_of").is_some() {
            let part = part_from(&value).ok_or_else(refused)?;
            if !replay.held.contains_key(&part.0) {
                let taken = import_part(&mut writer, part, &mut waiting).await?;
                taken.then_some(()).ok_or_else(refused)?;
            }
            continue;
        }
        let number = value.get("number").and_then(Value::as_u64);
        let number = number.ok_or_else(refused)?;
        if replay.held.contains_key(&number) {
            present += 1;
            continue;
        }
        let places = waiting.remove(&number).unwrap_or_default();
        let (number, payloads) = from_json(&value, &places).ok_or_else(refused)?;
        replay.held.insert(number, Default::default());
        added += 1;
        for payload in payloads {
            let appended = writer.append(&payload).await;
            appended.map_err(|error| error.to_string())?;
        }
    }
    let finished = writer.finish(None).await;
    finished.map_err(|error| error.to_string())?;
    Ok((added, present))
}

/// Writes one part; false when it is not the next one of its message.
async fn import_part(
    writer: &mut Rewriter,
    (number, index, payload): (u64, u32, Vec<u8>),
    waiting: &mut Waiting,
) -> Result<bool, String> {
    let places = waiting.entry(number).or_default();
    if places.len() != index as usize {
        return Ok(false);
    }
    let at = writer.append_placed(&[payload]).await;
    places.extend(at.map_err(|error| error.to_string())?);
    Ok(true)
}

/// Writes the parts of a message anew, some at a time; where they lie now.
async fn move_parts(writer: &mut Rewriter, parts: &[Location]) -> Result<Vec<Location>, String> {
    let mut places = Vec::with_capacity(parts.len());
    for group in parts.chunks(PARTS_GROUP) {
        let found = writer.read(group).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut payloads = Vec::with_capacity(group.len());
        for (payload, at) in found.into_iter().zip(group) {
            payloads.push(payload.ok_or_else(|| unreadable(*at))?);
        }
        let moved = writer.append_placed(&payloads).await;
        places.append(&mut moved.map_err(|error| error.to_string())?);
    }
    Ok(places)
}

fn unreadable(at: Location) -> String {
    format!(
        "a message in segment {} at octet {} cannot be read; run `volley store verify`",
        at.segment, at.offset
    )
}

/// The deposit in `payload` as a copy; with its parts at `places`, if it lies in parts.
fn copy_of(payload: &[u8], places: &[Location]) -> Option<Vec<u8>> {
    let Ok(Record::Deposit(deposit)) = record::decode(payload) else {
        return None;
    };
    let mut copy = payload.to_vec();
    if let Some(list) = deposit.parts() {
        let mut body = Vec::new();
        write_manifest(list.total, list.head, places, &mut body);
        let moved = Deposit {
            cpim: &body,
            ..deposit
        };
        copy.clear();
        record::encode_deposit(&moved, &mut copy).ok()?;
    }
    record::mark_copy(&mut copy).then_some(copy)
}

async fn compact(place: &Path, shard: u32) -> Result<u64, String> {
    let said = |error: volley::io::store::JournalError| error.to_string();
    let mut replay = Replay::watched(progress());
    let mut writer = Rewriter::open(place, &options(shard), &mut replay)
        .await
        .map_err(said)?;
    if replay.unreadable > 0 {
        return Err(format!(
            "{} holds {} records that this version does not understand: they would be lost",
            place.display(),
            replay.unreadable
        ));
    }
    let border = writer.border();
    let mut pending: Vec<_> = replay.held.values().collect();
    pending.sort_by_key(|held| (held.at.segment, held.at.offset));
    for group in pending.chunks(GROUP) {
        let places: Vec<Location> = group.iter().map(|held| held.at).collect();
        let found = writer.read(&places).await.map_err(said)?;
        for (held, payload) in group.iter().zip(found) {
            let payload = payload.ok_or_else(|| unreadable(held.at))?;
            let places = move_parts(&mut writer, &held.parts).await?;
            let copy = copy_of(&payload, &places).ok_or_else(|| unreadable(held.at))?;
            writer.append(&copy).await.map_err(said)?;
            let Ok(Record::Deposit(deposit)) = record::decode(&payload) else {
                continue;
            };
            for &device in &held.devices {
                let mark = mark(deposit.user, deposit.number, device, deposit.received);
                let mark = mark.ok_or("a mark that does not encode")?;
                writer.append(&mark).await.map_err(said)?;
            }
        }
    }
    let count = pending.len() as u64;
    writer.finish(Some(border)).await.map_err(said)?;
    Ok(count)
}
