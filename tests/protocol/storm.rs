//! Everybody comes back at once, and what a restart asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::harness::script::{Contact, Notifier, PHONE_A, USER, example, reginfo};
use crate::harness::text::Sip;
use crate::harness::{Bench, SCSCF, addr, options};
use volley::base::surface::LinkId;
use volley::push::lines::BEGUN_MAX;
use volley::shard::ShardOptions;

/// Users with a message waiting, and users who only register.
const WITH_MAIL: usize = 1500;
const WITHOUT: usize = 4500;
/// Pushes a second.
const PACE: u32 = 25;

fn crowd_options() -> ShardOptions {
    let mut options = options();
    options.hops[0].invite_inflight_max = 100_000;
    options.users_max = 100_000;
    options.campaign.pushes_per_s = PACE;
    options.campaign.decisions_per_turn = 16;
    // They ring until the test is over.
    options.push.t_answer = Duration::from_secs(10_000);
    options
}

fn number(user: usize) -> String {
    format!("+1555{user:07}")
}

/// The user whom a request of ours is about.
fn user_of(message: &Sip) -> usize {
    let uri = message.uri();
    let digits = uri.strip_prefix("sip:+1555").expect("a user of the crowd");
    digits[..7].parse().expect("seven digits")
}

/// `text` about another user.
fn about(user: usize, text: &str) -> String {
    // The same length, so Content-Length stays true.
    let padded = format!("+1555{user:07}");
    text.replace("+15550100000", &padded)
}

/// `text` of the scripts, about a user with as many digits as those of the crowd.
fn long(text: &str) -> String {
    let body_at = text.find("\r\n\r\n").expect("a header section") + 4;
    let (head, body) = text.split_at(body_at);
    let body = body.replace("+15550100", "+15550100000");
    let head = head.replace("+15550100", "+15550100000");
    let mut out = String::new();
    for line in head.split_inclusive("\r\n") {
        if line.starts_with("Content-Length:") {
            out.push_str(&format!("Content-Length: {}\r\n", body.len()));
        } else {
            out.push_str(line);
        }
    }
    out + &body
}

fn notify(bench: &mut Bench, user: usize, subscribe: &Sip) -> String {
    let ok = "Contact: <sip:scscf1.ims.example.net:5060;transport=tcp>\nExpires: 600000\n";
    bench.reply_as(subscribe, "200 OK", "sc", ok, "");
    let mut notifier = Notifier {
        call_id: subscribe.call_id().to_owned(),
        our_tag: subscribe.sender_tag().to_owned(),
        tag: "sc".to_owned(),
        cseq: 0,
        version: 0,
    };
    let lines = "Event: reg\nSubscription-State: active;expires=599999\n\
                 Content-Type: application/reginfo+xml\n";
    let document = reginfo(0, "full", &[Contact::of(PHONE_A)]);
    let text = bench.notify_text(&mut notifier, lines, &document);
    about(user, &long(&text))
}

/// The 200 to what was just said, and what else was sent; INVITEs are kept apart.
fn answered(bench: &mut Bench, invites: &mut Vec<(usize, Sip)>) -> (Sip, Vec<Sip>) {
    let mut ok = None;
    let mut rest = Vec::new();
    for message in bench.take_sip() {
        match message.what() {
            "200" => ok = Some(message),
            "INVITE" => {
                bench.reply(&message, "180 Ringing", "");
                invites.push((user_of(&message), message));
            }
            _ => rest.push(message),
        }
    }
    (ok.expect("a 200 in the same turn"), rest)
}

/// A message comes for a user of whom nothing is known: the SUBSCRIBE.
fn wanted(bench: &mut Bench, user: usize) -> Sip {
    let text = bench.deposit_text(USER, "hello", "");
    bench.sip_in(&about(user, &long(&text)));
    bench.expect_some("202");
    bench.expect("SUBSCRIBE")
}

/// The hop takes no request any more, until its connection is unstuck.
fn full(bench: &mut Bench) -> LinkId {
    let trunk = bench.trunks[&addr(SCSCF)];
    bench.stick(trunk);
    bench.owe_answers();
    trunk
}

/// A bench on which every user of `WITH_MAIL` has one message and is absent.
fn everybody_away() -> Bench {
    away(crowd_options(), WITH_MAIL)
}

/// A bench on which so many users have one message each and are absent.
fn away(options: ShardOptions, users: usize) -> Bench {
    let mut bench = Bench::with(options);
    for user in 0..users {
        let subscribe = wanted(&mut bench, user);
        bench.reply(&subscribe, "480 Temporarily Unavailable", "");
    }
    bench.take_sip();
    bench
}

// Proves: OVL-3, OVL-4
#[test]
fn under_a_rate_no_more_records_are_read_than_messages_may_leave() {
    let mut options = crowd_options();
    options.campaign.pushes_per_s = 0;
    options.campaign.decisions_per_turn = 256;
    options.post.cache_bytes_max = 1;
    let mut bench = Bench::with(options);
    let asked: Vec<Sip> = (0..50).map(|user| wanted(&mut bench, user)).collect();
    let halt = ";oc=0;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.1";
    bench.reply_with_wish(&asked[0], "100 Trying", halt);
    for (user, subscribe) in asked.iter().enumerate() {
        let text = notify(&mut bench, user, subscribe);
        bench.sip_in(&text);
    }
    bench.run_ms(300);
    let sent = bench.take_sip();
    assert!(sent.iter().all(|sip| sip.what() == "200"), "nothing leaves");
    let reads = bench.counter("store_loads_total");
    let slow = ";oc=1;oc-algo=\"rate\";oc-validity=60000;oc-seq=1.2";
    bench.reply_with_wish(&asked[0], "100 Trying", slow);
    bench.run_ms(300);
    assert_eq!(bench.take_sip().len(), 4, "what may leave at once");
    assert_eq!(bench.counter("store_loads_total") - reads, 4);
    bench.run_s(10);
    assert_eq!(bench.take_sip().len(), 10);
    assert_eq!(bench.counter("store_loads_total") - reads, 14);
}

// Proves: OVL-8
#[test]
fn a_storm_is_answered_at_once_and_pushed_at_the_pace_in_the_order_of_the_triggers() {
    let mut bench = everybody_away();
    let begin = bench.now;
    let register = example("f4-01-3p-register.txt");
    let all = WITH_MAIL + WITHOUT;
    let mut triggers = Vec::new();
    let mut invites: Vec<(usize, Sip)> = Vec::new();
    let keep = |bench: &mut Bench, invites: &mut Vec<(usize, Sip)>| {
        for message in bench.take_sip() {
            assert_eq!(message.what(), "INVITE", "{}", message.text);
            bench.reply(&message, "180 Ringing", "");
            invites.push((user_of(&message), message));
        }
    };
    for step in 0..all {
        // Everybody once, in no order; 100 a second.
        let user = step * 7919 % all;
        bench.run_ms(10);
        keep(&mut bench, &mut invites);
        let text = register.replace("z9hG4bKs4a", &format!("z9hG4bKreg{step}"));
        bench.sip_in(&about(user, &long(&text)));
        let (_, rest) = answered(&mut bench, &mut invites);
        if user >= WITH_MAIL {
            assert!(rest.is_empty(), "{rest:?}");
            continue;
        }
        let subscribe = rest.into_iter().next();
        let subscribe =
            subscribe.unwrap_or_else(|| panic!("no SUBSCRIBE for user {user}, step {step}"));
        assert_eq!(user_of(&subscribe), user);
        let text = notify(&mut bench, user, &subscribe);
        bench.sip_in(&text);
        // In the same turn, before anything else happens.
        let (ok, _) = answered(&mut bench, &mut invites);
        assert_eq!(ok.at, bench.now);
        triggers.push(user);
        // A second NOTIFY while the user waits for a push makes no second one.
        if user.is_multiple_of(10) {
            let again = text.replace("CSeq: 1 ", "CSeq: 2 ");
            bench.sip_in(&again.replace("z9hG4bKn", "z9hG4bKx"));
            answered(&mut bench, &mut invites);
        }
        keep(&mut bench, &mut invites);
    }
    let population = bench.shard.population();
    assert_eq!(
        population.users, WITH_MAIL,
        "who only registered is forgotten"
    );
    assert!(invites.len() < WITH_MAIL, "more come than the pace lets go");
    bench.run_s(30);
    keep(&mut bench, &mut invites);

    let pushed: Vec<usize> = invites.iter().map(|(user, _)| *user).collect();
    assert_eq!(pushed.len(), WITH_MAIL, "everybody");
    assert_eq!(
        pushed.iter().collect::<BTreeSet<_>>().len(),
        WITH_MAIL,
        "and nobody twice"
    );
    assert_eq!(pushed, triggers, "oldest trigger first");
    let mut windows: BTreeMap<u128, u32> = BTreeMap::new();
    let mut gaps = BTreeSet::new();
    for pair in invites.windows(2) {
        gaps.insert(pair[1].1.at.since(pair[0].1.at));
    }
    for (_, invite) in &invites {
        *windows
            .entry(invite.at.since(begin).as_millis() / 1000)
            .or_default() += 1;
    }
    assert!(
        windows.values().all(|&count| count <= PACE + 1),
        "{windows:?}"
    );
    let busiest = windows.values().filter(|&&count| count >= PACE - 4).count();
    assert!(busiest > 50, "the pace is used: {windows:?}");
    assert!(gaps.len() > WITH_MAIL / 2, "they do not leave in step");
}

fn register(bench: &mut Bench, user: usize) {
    let register = example("f4-01-3p-register.txt");
    let text = register.replace("z9hG4bKs4a", &format!("z9hG4bKreg{user}"));
    bench.sip_in(&about(user, &long(&text)));
}

/// Users in the order in which a SUBSCRIBE was sent for them.
fn subscribed(sent: Vec<Sip>, to: &mut Vec<Sip>) {
    to.extend(sent.into_iter().filter(|sip| sip.what() == "SUBSCRIBE"));
}

#[test]
fn who_waits_longest_for_a_hop_gets_the_room_that_others_leave() {
    const USERS: usize = 200;
    let mut options = crowd_options();
    options.campaign.pushes_per_s = 0;
    options.campaign.coalesce = Duration::ZERO;
    options.hops[0].invite_inflight_max = 4;
    let mut bench = away(options, USERS);
    let mut invites: Vec<(usize, Sip)> = Vec::new();
    let mut answered_so_far = 0;
    for user in 0..USERS {
        bench.run_ms(10);
        register(&mut bench, user);
        let (_, rest) = answered(&mut bench, &mut invites);
        let subscribe = rest.iter().find(|sip| sip.what() == "SUBSCRIBE");
        let subscribe = subscribe.expect("a REGISTER of an absent user with mail");
        let text = notify(&mut bench, user, subscribe);
        bench.sip_in(&text);
        answered(&mut bench, &mut invites);
        // Half as fast as they come, one is done with, so that newcomers meet room and a line.
        if user % 2 == 1 {
            let (_, invite) = invites[answered_so_far].clone();
            answered_so_far += 1;
            bench.reply(&invite, "486 Busy Here", "");
        }
    }
    while answered_so_far < invites.len() {
        let (_, invite) = invites[answered_so_far].clone();
        answered_so_far += 1;
        bench.reply(&invite, "486 Busy Here", "");
        for message in bench.take_sip() {
            if message.what() == "INVITE" {
                invites.push((user_of(&message), message));
            }
        }
    }
    let order: Vec<usize> = invites.iter().map(|(user, _)| *user).collect();
    let wanted: Vec<usize> = (0..USERS).collect();
    assert_eq!(order[..USERS], wanted, "in the order of their triggers");
}

#[test]
fn a_register_while_no_hop_takes_anything_is_not_forgotten() {
    let mut bench = away(crowd_options(), 3);
    let trunk = full(&mut bench);
    for user in [2, 0, 1] {
        register(&mut bench, user);
        bench.run_ms(700);
    }
    let mut asked = Vec::new();
    subscribed(bench.take_sip(), &mut asked);
    assert!(asked.is_empty(), "there is no room");
    bench.unstick(trunk);
    subscribed(bench.take_sip(), &mut asked);
    let order: Vec<usize> = asked.iter().map(user_of).collect();
    assert_eq!(
        order,
        [2, 0, 1],
        "all of them, in the order in which they came"
    );
    assert_eq!(bench.counter("subscribes_delayed_total"), 3);
}

/// The 480 says what was true before the REGISTER; that nothing takes the next SUBSCRIBE is no answer of
/// the registrar, and does not cost the pause after one.
#[test]
fn a_register_that_crosses_its_480_waits_for_room_and_no_longer() {
    let mut bench = Bench::with(crowd_options());
    let early = wanted(&mut bench, 0);
    register(&mut bench, 0);
    bench.expect("200");
    let trunk = full(&mut bench);
    bench.reply(&early, "480 Temporarily Unavailable", "");
    bench.run_ms(700);
    let mut asked = Vec::new();
    subscribed(bench.take_sip(), &mut asked);
    assert!(asked.is_empty(), "there is no room");
    bench.unstick(trunk);
    subscribed(bench.take_sip(), &mut asked);
    assert_eq!(asked.len(), 1);
    assert_eq!(bench.counter("subscribes_delayed_total"), 1);
}

#[test]
fn a_pause_that_ends_while_no_hop_takes_anything_is_not_followed_by_another() {
    let mut bench = Bench::with(crowd_options());
    let first = wanted(&mut bench, 0);
    bench.reply(&first, "500 Server Internal Error", "");
    let trunk = full(&mut bench);
    bench.run_ms(50_000);
    let mut asked = Vec::new();
    bench.unstick(trunk);
    subscribed(bench.take_sip(), &mut asked);
    assert_eq!(asked.len(), 1);
}

#[test]
fn a_shard_that_is_behind_finishes_before_it_begins_more() {
    const USERS: usize = 60;
    const HOT: u32 = 8;
    let mut options = crowd_options();
    options.campaign.pushes_per_s = 0;
    options.campaign.coalesce = Duration::ZERO;
    options.campaign.hot_invites = HOT;
    let mut bench = away(options, USERS);
    let mut invites = Vec::new();
    let mut come = |bench: &mut Bench, users: core::ops::Range<usize>| {
        for user in users {
            register(bench, user);
            let (_, rest) = answered(bench, &mut invites);
            let text = notify(bench, user, &rest[0]);
            bench.sip_in(&text);
            answered(bench, &mut invites);
        }
        invites.len()
    };
    // Nothing is held back while it keeps up, or has only just begun not to.
    assert_eq!(come(&mut bench, 0..12), 12);
    bench.behind = true;
    assert_eq!(come(&mut bench, 12..20), 20);
    bench.run_ms(5);
    assert_eq!(
        come(&mut bench, 20..USERS),
        20,
        "more than enough is under way"
    );
    assert!(bench.counter("turns_held_total") > 0);
    // Each end below the bound makes room for the one that has waited longest.
    for ended in 0..15_usize {
        let (_, invite) = invites[ended].clone();
        bench.reply(&invite, "486 Busy Here", "");
        for message in bench.take_sip() {
            if message.what() == "INVITE" {
                invites.push((user_of(&message), message));
            }
        }
        assert_eq!(
            invites.len(),
            20 + (ended + 1).saturating_sub(20 - HOT as usize)
        );
    }
    // All at once when it has caught up.
    bench.behind = false;
    bench.pump();
    for message in bench.take_sip() {
        if message.what() == "INVITE" {
            invites.push((user_of(&message), message));
        }
    }
    let order: Vec<usize> = invites.iter().map(|(user, _)| *user).collect();
    assert_eq!(order, (0..USERS).collect::<Vec<_>>());
}

#[test]
fn what_was_begun_comes_to_its_invite_before_more_is_begun() {
    const USERS: usize = BEGUN_MAX as usize + 300;
    let mut options = crowd_options();
    options.campaign.pushes_per_s = 0;
    let mut bench = away(options, USERS);
    let mut asked = Vec::new();
    for user in 0..USERS {
        register(&mut bench, user);
    }
    let sent = bench.take_sip();
    let answers = sent.iter().filter(|sip| sip.what() == "200").count();
    assert_eq!(answers, USERS, "every REGISTER is answered at once");
    subscribed(sent, &mut asked);
    assert_eq!(asked.len(), BEGUN_MAX as usize);
    // Whoever comes to an INVITE makes room for the one that has waited longest.
    let mut invites = Vec::new();
    for user in 0..100 {
        let text = notify(&mut bench, user, &asked[user].clone());
        bench.sip_in(&text);
        let (_, rest) = answered(&mut bench, &mut invites);
        subscribed(rest, &mut asked);
    }
    assert_eq!(invites.len(), 100);
    assert_eq!(asked.len(), BEGUN_MAX as usize + 100);
    // A registrar that says nothing holds up its own users only, and the others for a second.
    bench.run_ms(1500);
    subscribed(bench.take_sip(), &mut asked);
    let order: Vec<usize> = asked.iter().map(user_of).collect();
    assert_eq!(order, (0..USERS).collect::<Vec<_>>());
}

// Proves: OVL-10
#[test]
fn after_a_restart_subscriptions_are_asked_for_at_the_pace() {
    let records = std::mem::take(&mut everybody_away().records);
    let mut options = crowd_options();
    options.subscribe_pace_per_s = 500;
    let mut bench = Bench::restarted(options, &records, 2);
    let begin = bench.now;
    bench.run_s(10);
    let sent = bench.take_sip();
    let users: BTreeSet<usize> = sent.iter().map(user_of).collect();
    assert_eq!((sent.len(), users.len()), (WITH_MAIL, WITH_MAIL));
    let mut windows: BTreeMap<u128, u32> = BTreeMap::new();
    for subscribe in &sent {
        assert_eq!(subscribe.what(), "SUBSCRIBE");
        *windows
            .entry(subscribe.at.since(begin).as_millis() / 100)
            .or_default() += 1;
    }
    // A tick of the wheel may move a few over the border of a window.
    assert!(
        windows.values().all(|&count| count <= 50 + 5),
        "{windows:?}"
    );
    assert!(
        (29..=32).contains(&windows.len()),
        "three seconds: {windows:?}"
    );
}

// Proves: OVL-10
#[test]
fn refreshes_of_a_herd_are_spread() {
    let mut options = crowd_options();
    options.campaign.pushes_per_s = 0;
    options.subscribe_always = true;
    let mut bench = Bench::with(options);
    let register = example("f4-01-3p-register.txt");
    // All subscribe in the same moment.
    for user in 0..200 {
        let text = register.replace("z9hG4bKs4a", &format!("z9hG4bKreg{user}"));
        bench.sip_in(&about(user, &long(&text)));
        bench.expect("200");
        let subscribe = bench.expect("SUBSCRIBE");
        let text = notify(&mut bench, user, &subscribe);
        bench.sip_in(&text);
        bench.expect("200");
    }
    let begin = bench.now;
    let mut times = Vec::new();
    for _ in 0..700 {
        bench.run_s(1000);
        for refresh in bench.take_sip() {
            if refresh.what() == "SUBSCRIBE" && times.len() < 200 {
                times.push(refresh.at.since(begin).as_secs());
                let ok = "Contact: <sip:scscf1.ims.example.net>\nExpires: 600000\n";
                bench.reply_as(&refresh, "200 OK", "sc", ok, "");
            }
        }
        if times.len() >= 200 {
            break;
        }
    }
    let distinct: BTreeSet<u64> = times.iter().copied().collect();
    assert_eq!(times.len(), 200);
    assert!(times.iter().all(|&at| at < 600_000), "before they end");
    assert!(distinct.len() > 100, "not in step: {distinct:?}");
}

#[test]
fn the_texts_of_the_crowd_stay_true() {
    let text = long("A b\r\nContent-Length: 3\r\n\r\nsip:+15550100@x");
    assert!(text.contains("Content-Length: 18"), "{text}");
    assert!(about(7, &text).contains(&number(7)));
}
