//! The wall clock is set while certificates are kept: forward past their ends, back to before their time, and anywhere.
//!
//! The time that passes is tokio's, which these tests let pass at once; the clock is one of their own.

use super::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A manager and its authority, by one clock.
fn world() -> (Arc<Told>, Manager, Clock) {
    let clock = Clock::default();
    let authority = Told::by(&clock);
    let config = Config { ttl: Duration::from_secs(DAY.unsigned_abs()), ..Config::default() };
    let manager = Manager::by(Arc::clone(&authority) as Arc<dyn Authority>, config, clock.clone());
    (authority, manager, clock)
}

/// What a peer by the same clock would say of it.
fn is_good(certificate: &WorkloadCertificate, clock: &Clock) -> bool {
    !certificate.is_expired(clock.now()) && !certificate.is_early(clock.now())
}

#[tokio::test(start_paused = true)]
async fn who_connects_after_a_jump_past_the_end_waits_for_a_new_certificate_only() {
    let (authority, manager, clock) = world();
    let first = manager.get(&identity("sleep")).await.unwrap();
    clock.set_ahead(2 * DAY);
    assert!(first.is_expired(clock.now()));
    let began = tokio::time::Instant::now();
    let next = manager.get(&identity("sleep")).await.unwrap();
    assert!(is_good(&next, &clock) && !Arc::ptr_eq(&first, &next));
    assert_eq!(authority.asked(), 2);
    assert!(began.elapsed() < Duration::from_secs(5), "it is fetched for whoever asks, not at the next look");
    // Nobody asks: it is found by itself, within a minute.
    clock.set_ahead(4 * DAY);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(authority.asked(), 3);
    assert!(is_good(&manager.get(&identity("sleep")).await.unwrap(), &clock));
}

#[tokio::test(start_paused = true)]
async fn no_expired_certificate_is_given_out_while_the_authority_refuses_and_it_recovers() {
    let (authority, manager, clock) = world();
    manager.get(&identity("sleep")).await.unwrap();
    authority.refuses.store(true, Ordering::SeqCst);
    clock.set_ahead(2 * DAY);
    for _ in 0..3 {
        manager.get(&identity("sleep")).await.unwrap_err();
    }
    authority.refuses.store(false, Ordering::SeqCst);
    assert!(is_good(&manager.get(&identity("sleep")).await.unwrap(), &clock));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_costs_one_renewal_and_no_connection() {
    let (authority, manager, clock) = world();
    let first = manager.get(&identity("sleep")).await.unwrap();
    clock.set_ahead(-2 * DAY);
    // It has not expired, and the clocks of peers may be right.
    assert!(Arc::ptr_eq(&first, &manager.get(&identity("sleep")).await.unwrap()));
    tokio::time::sleep(Duration::from_secs(70)).await;
    let next = manager.get(&identity("sleep")).await.unwrap();
    assert!(is_good(&next, &clock));
    assert_eq!(authority.asked(), 2, "once is enough");
    // Hours pass, in which the clock is right: no timer that went wrong fires.
    tokio::time::sleep(Duration::from_secs(3 * HOUR.unsigned_abs())).await;
    assert_eq!(authority.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_authority_whose_clock_is_ahead_is_not_asked_again_and_again() {
    let (ours, theirs) = (Clock::default(), Clock::default());
    theirs.set_ahead(HOUR);
    let authority = Told::by(&theirs);
    let manager = Manager::by(Arc::clone(&authority) as Arc<dyn Authority>, Config::default(), ours.clone());
    let certificate = manager.get(&identity("sleep")).await.unwrap();
    assert!(certificate.is_early(ours.now()));
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(authority.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_anywhere_ends_nothing_and_is_kept_up_with() {
    let (authority, manager, clock) = world();
    let identities = ["a", "b", "c"].map(identity);
    // To 1969, to 2100, and around the ends of what is there.
    let jumps =
        [-60 * 365 * DAY, DAY, DAY - 1, DAY / 2, 0, -1, 75 * 365 * DAY, -120, 7 * DAY, -DAY, 2 * DAY, 0];
    for (number, ahead) in jumps.into_iter().enumerate() {
        clock.set_ahead(ahead);
        for identity in &identities {
            // The root itself has an end, beyond which nothing can be signed.
            if let Ok(certificate) = manager.get(identity).await {
                assert!(!certificate.is_expired(clock.now()), "after jump {number}");
            }
        }
        tokio::time::sleep(Duration::from_secs(70)).await;
    }
    for identity in &identities {
        assert!(is_good(&manager.get(identity).await.unwrap(), &clock));
    }
    // A few for each jump: what fails is tried again, with a growing wait.
    assert!(authority.asked() < 12 * jumps.len() * identities.len(), "{}", authority.asked());
}
