//! The initial INVITE of a push: seed clause (a) to (h) and the rows around it.

use memchr::memchr;

use super::sdp::{self, DirectionLevel, OfferMould};
use super::{Bench, Hasher, KnownGood, ProvenForms, judge_branch, tag, via_branch};
use crate::identity::{GruuForm, Names};
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, next_in_list, param, params, parse_number};
use crate::unique::RecentSet;

/// What the operator of the engine configured and the judge therefore demands.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `msrp-cema` is in the offer.
    pub cema: bool,
    /// Level of the direction attribute.
    pub level: DirectionLevel,
    /// Transport name in Via.
    pub transport: &'static [u8],
    /// Whether the transport is a datagram one; then the path MTU bounds the request.
    pub path_mtu: Option<usize>,
    /// ICSIs of which a push has one, in their plain form, comma-separated: more than one where the
    /// engine is configured with dialects.
    pub icsi: String,
    /// The same as they stand in a feature tag.
    pub icsi_encoded: Vec<u8>,
    /// `host:port` of the S-CSCF listener.
    pub scscf: Vec<u8>,
}

/// What the rest of the judge takes from a push INVITE.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// User of the Request-URI.
    pub user: u32,
    /// Device of the Request-URI.
    pub device: u8,
    /// Whether the GRUU is of the SIP identity.
    pub form: GruuForm,
    /// Top Via's branch.
    pub branch: &'a [u8],
    /// From tag.
    pub from_tag: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq number.
    pub cseq: u32,
    /// `a=path` of the offer.
    pub path: &'a [u8],
    /// Message named by Conversation-ID and Contribution-ID, when both agree.
    pub first_message: Option<u64>,
    /// Hashes of Call-ID, From tag, branch, icid and path, when the message was judged.
    pub hashes: Option<[u64; 5]>,
}

/// Parts in which INVITEs of one form may differ: Request-URI, branch, From tag, URI of To, Call-ID,
/// CSeq number, icid, Conversation-ID, Contribution-ID and Content-Length.
const PARTS: usize = 10;

/// The INVITE checker with its memory.
#[derive(Debug)]
pub struct InviteCheck {
    policy: Policy,
    hasher: Hasher,
    /// The next INVITE tries again after a 422: it keeps its identifiers but for the branch.
    pub retry: bool,
    /// Forms of message whose fixed octets were found good.
    proven: ProvenForms<PARTS>,
    identifiers: RecentSet,
    accept_contact: KnownGood,
    contact: KnownGood,
    user_agent: KnownGood,
    identity: KnownGood,
    service: KnownGood,
    route: KnownGood,
    allow: KnownGood,
    session_expires: KnownGood,
    offer: OfferMould,
}

impl InviteCheck {
    /// A checker that remembers identifiers of at least `window` pushes.
    pub fn new(policy: Policy, window: usize) -> Self {
        Self {
            policy,
            hasher: Hasher::default(),
            retry: false,
            proven: ProvenForms::default(),
            identifiers: RecentSet::new(window.saturating_mul(5)),
            accept_contact: KnownGood::default(),
            contact: KnownGood::default(),
            user_agent: KnownGood::default(),
            identity: KnownGood::default(),
            service: KnownGood::default(),
            route: KnownGood::default(),
            allow: KnownGood::default(),
            session_expires: KnownGood::default(),
            offer: OfferMould::default(),
        }
    }

    /// What is demanded.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Reads what the rest of the judge needs without judging; `None` when the device cannot be
    /// told.
    pub fn read<'a>(names: &Names, message: &Message<'a>) -> Option<Push<'a>> {
        let mut push = Self::read_head(names, message)?;
        push.path = memchr::memmem::find(message.body, b"a=path:").map_or(&[][..], |at| {
            let rest = &message.body[at + 7..];
            crate::scan::trim_end(&rest[..memchr(b'\n', rest).unwrap_or(rest.len())])
        });
        let via = message.value(Header::Via).unwrap_or(&[]);
        push.branch = memchr::memmem::find(via, b";branch=").map_or(&[][..], |at| {
            let rest = &via[at + 8..];
            &rest[..memchr(b';', rest).unwrap_or(rest.len())]
        });
        Some(push)
    }

    /// Everything but branch and path.
    fn read_head<'a>(names: &Names, message: &Message<'a>) -> Option<Push<'a>> {
        let (user, device, form) = match names.read_gruu(message.target) {
            Some(read) => read,
            None => match names.guess_device(message.target)? {
                (user, Some(device)) => (user, device, GruuForm::Sip),
                (_, None) => return None,
            },
        };
        Some(Push {
            user,
            device,
            form,
            branch: &[],
            from_tag: message.value(Header::From).and_then(tag).unwrap_or(&[]),
            call_id: message.value(Header::CallId).unwrap_or(&[]),
            cseq: message.cseq().map_or(0, |(number, _)| number),
            path: &[],
            first_message: None,
            hashes: None,
        })
    }

    /// Judges a push INVITE; `None` when not even the device can be told.
    pub fn check<'a>(
        &mut self,
        names: &Names,
        message: &Message<'a>,
        bench: &mut Bench<'_>,
    ) -> Option<Push<'a>> {
        let exact = names.read_gruu(message.target);
        bench.demand(
            exact.is_some(),
            Rule::PushA,
            "R-URI is not a public GRUU as issued",
        );
        let known = self.proven.parts(message);
        let (mut push, icid) = match (known, exact) {
            (Some(parts), Some(whose)) => self.check_parts(names, whose, parts, bench),
            (None | Some(_), _) => self.check_all(names, message, bench)?,
        };
        bench.demand(
            push.form == GruuForm::Sip,
            Rule::Reg9,
            "GRUU of another identity than the message was addressed to",
        );
        self.check_transport(message, bench);
        self.check_offer(message, &mut push, bench);
        push.hashes = Some(self.check_fresh(&push, icid, bench));
        Some(push)
    }

    /// An INVITE of a proven form: only what differs is judged. Gives the icid, too.
    #[inline]
    fn check_parts<'a>(
        &self,
        names: &Names,
        (user, device, form): (u32, u8, GruuForm),
        parts: [&'a [u8]; PARTS],
        bench: &mut Bench<'_>,
    ) -> (Push<'a>, &'a [u8]) {
        let [
            _,
            branch,
            from_tag,
            to_uri,
            call_id,
            number,
            icid,
            conversation,
            contribution,
            _,
        ] = parts;
        judge_branch(branch, bench);
        bench.demand(!from_tag.is_empty(), Rule::PushL, "From has no tag");
        let to_ok = names.read_aor(to_uri) == Some(user);
        bench.demand(to_ok, Rule::PushL, "To is not the user's identity");
        let cseq = parse_number(number);
        let cseq_ok = cseq.is_some_and(|number| number < 1 << 31);
        bench.demand(
            cseq_ok,
            Rule::PushL,
            "CSeq is not <number below 2^31> INVITE",
        );
        let first = names.read_cpm_id(true, conversation);
        let same = first.is_some() && first == names.read_cpm_id(false, contribution);
        bench.demand(
            same,
            Rule::PushI,
            "Conversation-ID and Contribution-ID not of one message",
        );
        let push = Push {
            user,
            device,
            form,
            branch,
            from_tag,
            call_id,
            cseq: cseq.unwrap_or(0),
            path: &[],
            first_message: first.filter(|_| same),
            hashes: None,
        };
        (push, icid)
    }

    /// Every rule about the header section. Gives the icid, too.
    fn check_all<'a>(
        &mut self,
        names: &Names,
        message: &Message<'a>,
        bench: &mut Bench<'_>,
    ) -> Option<(Push<'a>, &'a [u8])> {
        let mut push = Self::read_head(names, message)?;
        let before = core::mem::replace(&mut bench.clean, true);
        push.branch = via_branch(message, self.policy.transport, bench).unwrap_or(&[]);
        check_addressing(names, message, &push, bench);
        self.check_core(message, bench);
        self.check_features(message, bench);
        self.check_timer(message, bench);
        self.check_trust(message, bench);
        let icid = check_charging(message, bench);
        push.first_message = check_cpm_ids(names, message, bench);
        let type_ok = message.count(Header::ContentType) == 1;
        if bench.clean && type_ok && message.form != 0 {
            self.learn(message, &push, icid);
        }
        bench.clean &= before;
        Some((push, icid))
    }

    /// Remembers the form of an INVITE whose header section broke no rule.
    #[cold]
    fn learn(&mut self, message: &Message<'_>, push: &Push<'_>, icid: &[u8]) {
        let value = |header| message.value(header).unwrap_or(&[]);
        let (to_uri, _) = name_addr(value(Header::To)).unwrap_or((&[], &[]));
        let cseq = value(Header::CSeq);
        let digits = cseq.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let parts = [
            message.target,
            push.branch,
            push.from_tag,
            to_uri,
            push.call_id,
            &cseq[..digits],
            icid,
            value(Header::ConversationId),
            value(Header::ContributionId),
            value(Header::ContentLength),
        ];
        self.proven.note(message, parts);
    }

    fn check_transport(&self, message: &Message<'_>, bench: &mut Bench<'_>) {
        if self.policy.transport == b"UDP" {
            let room = self
                .policy
                .path_mtu
                .map_or(1300, |mtu| mtu.saturating_sub(200));
            bench.demand(
                message.bytes.len() <= room,
                Rule::Nh4,
                "too long for a datagram",
            );
        }
    }

    fn check_core(&mut self, message: &Message<'_>, bench: &mut Bench<'_>) {
        for header in [
            Header::From,
            Header::To,
            Header::CallId,
            Header::CSeq,
            Header::Contact,
        ] {
            bench.demand(
                message.count(header) == 1,
                Rule::PushL,
                "a header is not there once",
            );
        }
        bench.demand(
            message.value(Header::MaxForwards) == Some(b"70"),
            Rule::PushL,
            "Max-Forwards is not 70",
        );
        let allow = message.value(Header::Allow).unwrap_or(&[]);
        if !self.allow.is(allow) {
            let good = [b"INVITE".as_slice(), b"ACK", b"BYE", b"CANCEL"]
                .iter()
                .all(|method| lists(allow, method));
            bench.demand(good, Rule::PushL, "Allow lacks a method of the session");
            if good {
                self.allow.set(allow);
            }
        }
        self.check_route(message, bench);
    }

    fn check_route(&mut self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let Some(route) = message.value(Header::Route) else {
            bench.fail(Rule::PushH, "no Route");
            return;
        };
        if self.route.is(route) && message.count(Header::Route) == 1 {
            return;
        }
        let mut list = route;
        let first = next_in_list(&mut list).unwrap_or(&[]);
        let (uri, _) = name_addr(first).unwrap_or((&[], &[]));
        let good = route_is_ours(uri, &self.policy.scscf);
        bench.demand(good, Rule::PushH, "first Route is not the S-CSCF with lr");
        let orig = message.values(Header::Route).any(|value| {
            name_addr(value).is_some_and(|(uri, _)| {
                memchr(b';', uri).is_some_and(|at| param(&uri[at..], b"orig").is_some())
            })
        });
        bench.demand(!orig, Rule::Ims1, "orig in the Route of a push");
        if good && !orig {
            self.route.set(route);
        }
    }

    fn check_features(&mut self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let accept = message.value(Header::AcceptContact);
        match accept {
            None => bench.fail(Rule::PushB, "no Accept-Contact"),
            Some(value) if self.accept_contact.is(value) => {}
            Some(value) => {
                let before = core::mem::replace(&mut bench.clean, true);
                self.judge_accept_contact(message, bench);
                if bench.clean && message.count(Header::AcceptContact) == 1 {
                    self.accept_contact.set(value);
                }
                bench.clean &= before;
            }
        }
        if let Some(contact) = message.value(Header::Contact)
            && !self.contact.is(contact)
        {
            self.judge_contact(contact, bench);
        }
        let agent = message.value(Header::UserAgent).unwrap_or(&[]);
        if !self.user_agent.is(agent) {
            let first = agent.split(|&byte| byte == b' ').next().unwrap_or(&[]);
            let good = memchr::memmem::find(first, b"OMA").is_some_and(|at| first.len() > at + 3);
            bench.demand(
                good,
                Rule::PushC,
                "User-Agent does not name the CPM release",
            );
            if good {
                self.user_agent.set(agent);
            }
        }
    }

    fn judge_accept_contact(&self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let mut tagged = false;
        for value in message.values(Header::AcceptContact) {
            let mut rest = value;
            while let Some(one) = next_in_list(&mut rest) {
                let Some(tail) = one.strip_prefix(b"*") else {
                    bench.fail(Rule::PushB, "ac-value is not *");
                    continue;
                };
                let mut tags = 0;
                for (name, value) in params(tail) {
                    if name.eq_ignore_ascii_case(b"+g.3gpp.icsi-ref") {
                        tags += 1;
                        let (good, holds) = judge_feature(value, &self.policy.icsi_encoded);
                        bench.demand(
                            good,
                            Rule::PushB1,
                            "feature value not quoted or not encoded",
                        );
                        tagged |= holds || !good;
                    } else if name.eq_ignore_ascii_case(b"require")
                        || name.eq_ignore_ascii_case(b"explicit")
                    {
                        bench.fail(Rule::PushB2, "require or explicit present");
                    }
                }
                bench.demand(tags <= 1, Rule::PushB1, "feature tag twice in one value");
            }
        }
        bench.demand(
            tagged,
            Rule::PushB,
            "no ac-value carries the CPM feature tag",
        );
    }

    fn judge_contact(&mut self, contact: &[u8], bench: &mut Bench<'_>) {
        let Some((uri, tail)) = name_addr(contact) else {
            bench.fail(Rule::PushD, "Contact cannot be read");
            return;
        };
        let feature = param(tail, b"+g.3gpp.icsi-ref");
        let (encoded, holds) = feature.map_or((false, false), |value| {
            judge_feature(value, &self.policy.icsi_encoded)
        });
        let feature_ok = encoded && holds;
        bench.demand(
            feature_ok,
            Rule::PushD,
            "Contact without the CPM feature tag",
        );
        let automata_ok = contact_automata(tail);
        bench.demand(automata_ok, Rule::PushE, "Contact without bare automata");
        let uri_ok = uri.starts_with(b"sip:");
        bench.demand(uri_ok, Rule::PushL, "Contact is no SIP URI");
        if feature_ok && automata_ok && uri_ok {
            self.contact.set(contact);
        }
    }

    fn check_timer(&mut self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let value = message.value(Header::SessionExpires).unwrap_or(&[]);
        if !self.session_expires.is(value) || message.count(Header::MinSe) != 0 {
            let digits = memchr(b';', value).unwrap_or(value.len());
            let interval = parse_number(crate::scan::trim_end(&value[..digits]));
            let least = message
                .value(Header::MinSe)
                .and_then(parse_number)
                .unwrap_or(90)
                .max(90);
            let interval_ok = interval.is_some_and(|interval| interval >= least);
            bench.demand(
                interval_ok,
                Rule::PushF,
                "Session-Expires missing or below 90 or Min-SE",
            );
            let refresher = param(&value[digits..], b"refresher");
            let refresher_ok = refresher == Some(b"uac");
            if !value.is_empty() {
                bench.demand(refresher_ok, Rule::PushF1, "refresher is not uac");
            }
            if interval_ok && refresher_ok && message.count(Header::MinSe) == 0 {
                self.session_expires.set(value);
            }
        }
        let supported = message.value(Header::Supported).unwrap_or(&[]);
        if supported != b"timer" {
            let any = |token: &[u8]| {
                message
                    .values(Header::Supported)
                    .any(|value| lists(value, token))
            };
            bench.demand(any(b"timer"), Rule::PushF2, "Supported does not list timer");
            bench.demand(!any(b"100rel"), Rule::PushL, "Supported lists 100rel");
        }
        for header in [Header::Require, Header::ProxyRequire] {
            if message.count(header) > 0 {
                let any = message.values(header).any(|value| lists(value, b"timer"));
                bench.demand(!any, Rule::PushF3, "timer is required");
            }
        }
    }

    /// Every identifier differs from those of the pushes before.
    ///
    /// The look-ups miss the cache; side by side, the misses overlap.
    fn check_fresh(&mut self, push: &Push<'_>, icid: &[u8], bench: &mut Bench<'_>) -> [u64; 5] {
        let identifiers = [
            (push.call_id, Rule::Push0a, "Call-ID was used before"),
            (push.from_tag, Rule::Push0a, "From tag was used before"),
            (push.branch, Rule::Tx8, "branch was used before"),
            (icid, Rule::PushK, "icid was used before"),
            (push.path, Rule::Push0a, "MSRP path was used before"),
        ];
        let mut hashes = [0u64; 5];
        for (salt, (hash, (identifier, _, _))) in (1..).zip(hashes.iter_mut().zip(identifiers)) {
            *hash = self.hasher.hash(salt, identifier);
        }
        let fresh = self.identifiers.insert_all(&hashes);
        let retry = core::mem::take(&mut self.retry);
        for ((identifier, rule, what), fresh) in identifiers.into_iter().zip(fresh) {
            let old = retry && rule != Rule::Tx8;
            bench.demand(fresh || identifier.is_empty() || old, rule, what);
        }
        hashes
    }

    fn check_trust(&mut self, message: &Message<'_>, bench: &mut Bench<'_>) {
        let identity = message.value(Header::PAssertedIdentity).unwrap_or(&[]);
        let once = message.count(Header::PAssertedIdentity) == 1;
        let good = once && (self.identity.is(identity) || name_addr(identity).is_some());
        bench.demand(good, Rule::PushJ, "not one P-Asserted-Identity");
        if good && !self.identity.is(identity) {
            self.identity.set(identity);
        }
        let service = message.value(Header::PAssertedService).unwrap_or(&[]);
        let once = message.count(Header::PAssertedService) == 1;
        let mut names = self.policy.icsi.split(',');
        let good =
            once && (self.service.is(service) || names.any(|name| service == name.as_bytes()));
        bench.demand(
            good,
            Rule::PushJ,
            "P-Asserted-Service is not the plain URN once",
        );
        if good && !self.service.is(service) {
            self.service.set(service);
        }
        bench.demand(
            message.count(Header::PPreferred) == 0,
            Rule::PushJ,
            "P-Preferred header",
        );
        let foreign =
            message.count(Header::PAccessNetworkInfo) + message.count(Header::PVisitedNetworkId);
        bench.demand(
            foreign == 0,
            Rule::Ims6,
            "access or visited network towards the client",
        );
    }

    fn check_offer<'a>(
        &mut self,
        message: &Message<'a>,
        push: &mut Push<'a>,
        bench: &mut Bench<'_>,
    ) {
        let kind = message.value(Header::ContentType).unwrap_or(&[]);
        let once = message.count(Header::ContentType) == 1;
        let kind_ok = once && kind.eq_ignore_ascii_case(b"application/sdp");
        bench.demand(
            kind_ok && !message.body.is_empty(),
            Rule::PushG,
            "no application/sdp body",
        );
        if message.body.is_empty() {
            return;
        }
        if let Some(offer) = self.offer.fits(message.body) {
            push.path = offer.path;
            return;
        }
        let before = core::mem::replace(&mut bench.clean, true);
        let offer = sdp::check(message.body, self.policy.level, self.policy.cema, bench);
        push.path = offer.path;
        if bench.clean {
            self.offer.set(message.body, offer);
        }
        bench.clean &= before;
    }
}

/// To, From tag and CSeq.
fn check_addressing(names: &Names, message: &Message<'_>, push: &Push<'_>, bench: &mut Bench<'_>) {
    let (to_uri, to_tail) = message
        .value(Header::To)
        .and_then(name_addr)
        .unwrap_or((&[], &[]));
    bench.demand(
        names.read_aor(to_uri) == Some(push.user),
        Rule::PushL,
        "To is not the user's identity",
    );
    bench.demand(
        param(to_tail, b"tag").is_none(),
        Rule::PushL,
        "To has a tag",
    );
    bench.demand(!push.from_tag.is_empty(), Rule::PushL, "From has no tag");
    let cseq_ok = message
        .cseq()
        .is_some_and(|(number, method)| number < 1 << 31 && method == b"INVITE");
    bench.demand(
        cseq_ok,
        Rule::PushL,
        "CSeq is not <number below 2^31> INVITE",
    );
}

/// P-Charging-Vector; gives the icid.
fn check_charging<'a>(message: &Message<'a>, bench: &mut Bench<'_>) -> &'a [u8] {
    let vector = message.value(Header::PChargingVector).unwrap_or(&[]);
    let once = message.count(Header::PChargingVector) == 1;
    let (mut icid, mut generated, mut ioi) = (&[][..], false, false);
    for (name, value) in charging_params(vector) {
        match name {
            b"icid-value" => icid = value,
            b"icid-generated-at" => generated = !value.is_empty(),
            b"orig-ioi" => ioi = !value.is_empty(),
            _ => {}
        }
    }
    let complete = once && icid.len() > 2 && generated && ioi;
    bench.demand(
        complete,
        Rule::PushK,
        "P-Charging-Vector missing or incomplete",
    );
    if complete { icid } else { &[] }
}

/// Whether a feature value is quoted and percent-encoded, and whether it holds one of the ICSIs.
fn judge_feature(value: &[u8], icsis: &[u8]) -> (bool, bool) {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return (false, false);
    };
    let encoded = memchr(b':', inner).is_none();
    let holds = inner.split(|&byte| byte == b',').any(|one| {
        let mut icsis = icsis.split(|&byte| byte == b',');
        icsis.any(|icsi| one.eq_ignore_ascii_case(icsi))
    });
    (encoded, holds)
}

/// Whether `automata` is there exactly once and bare.
fn contact_automata(tail: &[u8]) -> bool {
    let mut found = 0;
    for piece in params(tail) {
        if piece.0.eq_ignore_ascii_case(b"automata") {
            found += if piece.1.is_empty() { 1 } else { 2 };
        }
    }
    found == 1
}

/// Whether a Route URI leads back to this S-CSCF with `lr`.
fn route_is_ours(uri: &[u8], scscf: &[u8]) -> bool {
    let Some(rest) = uri.strip_prefix(b"sip:") else {
        return false;
    };
    let semicolon = memchr(b';', rest).unwrap_or(rest.len());
    let (address, tail) = rest.split_at(semicolon);
    let address = memchr(b'@', address).map_or(address, |at| &address[at + 1..]);
    (address == scscf || scscf.is_empty()) && param(tail, b"lr").is_some()
}

/// The parameters of P-Charging-Vector, which starts without a semicolon.
fn charging_params(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value
        .split(|&byte| byte == b';')
        .map(|one| match memchr(b'=', one) {
            Some(equals) => (crate::scan::trim_start(&one[..equals]), &one[equals + 1..]),
            None => (one, &one[one.len()..]),
        })
}

/// PUSH-i as far as it can be told from the message alone: both headers, once, of one message.
fn check_cpm_ids(names: &Names, message: &Message<'_>, bench: &mut Bench<'_>) -> Option<u64> {
    let once =
        message.count(Header::ConversationId) == 1 && message.count(Header::ContributionId) == 1;
    let conversation = message
        .value(Header::ConversationId)
        .and_then(|value| names.read_cpm_id(true, value));
    let contribution = message
        .value(Header::ContributionId)
        .and_then(|value| names.read_cpm_id(false, value));
    let good = once && conversation.is_some() && conversation == contribution;
    bench.demand(
        good,
        Rule::PushI,
        "Conversation-ID or Contribution-ID missing or not of one message",
    );
    if good { conversation } else { None }
}
