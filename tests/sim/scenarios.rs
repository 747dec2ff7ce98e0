//! Single stories, each about one thing that once went or might go wrong.

use core::time::Duration;

use volley::sim::{Options, World};

// Proves: TX-3
#[test]
fn answers_a_2xx_that_comes_after_we_gave_up() {
    let mut world = World::new(Options::calm());
    let phone = world.register("sip:user@ims.example.net");
    world.hold_responses_for(phone, Duration::from_secs(33));
    world.run_for(Duration::from_secs(1));
    world.send(phone, 30);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.sent(phone), ["INVITE", "ACK", "BYE"]);
    assert_eq!(world.probe().late_2xx_total, 1);
}
