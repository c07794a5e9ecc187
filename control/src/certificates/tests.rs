use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prometheus_client::registry::Registry;

use super::*;
use crate::ca::LocalCa;
use crate::clock::Clock;

mod clock;

/// A local authority that counts, and does as it is told.
struct Told {
    ca: LocalCa,
    /// The authority that follows it, in whose name it signs if it is told to.
    successor: LocalCa,
    signs_as_successor: AtomicBool,
    /// The roots that come with an answer, if not the signer's own.
    roots: Mutex<Option<Vec<CertificateDer<'static>>>>,
    /// What follows the leaf in an answer.
    also: Mutex<Vec<CertificateDer<'static>>>,
    /// In what order it was asked.
    order: Mutex<Vec<Identity>>,
    _dirs: [tempfile::TempDir; 2],
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    refuses: AtomicBool,
    hangs: AtomicBool,
    /// Signs for this one whoever is asked for.
    instead: Mutex<Option<Identity>>,
    /// Signs this request whatever it is given.
    other_request: Mutex<Option<Vec<u8>>>,
}

impl Told {
    fn new() -> Arc<Self> {
        Self::by(&Clock::default())
    }

    /// By a clock.
    fn by(clock: &Clock) -> Arc<Self> {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let ca = |dir: &tempfile::TempDir| {
            LocalCa::open_or_create(dir.path(), "cluster.local").unwrap().by(clock.clone())
        };
        Arc::new(Self {
            ca: ca(&dirs[0]),
            successor: ca(&dirs[1]),
            signs_as_successor: AtomicBool::default(),
            roots: Mutex::default(),
            also: Mutex::default(),
            order: Mutex::default(),
            _dirs: dirs,
            asked: AtomicUsize::default(),
            at_once: AtomicUsize::default(),
            most_at_once: AtomicUsize::default(),
            refuses: AtomicBool::default(),
            hangs: AtomicBool::default(),
            instead: Mutex::default(),
            other_request: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Authority for Told {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Issued, AuthorityError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.order.lock().unwrap().push(identity.clone());
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.refuses.load(Ordering::SeqCst) {
                return Err(AuthorityError::Refused { identity: identity.clone(), reason: "told to".into() });
            }
            let instead = self.instead.lock().unwrap().clone();
            let other = self.other_request.lock().unwrap().clone();
            let as_successor = self.signs_as_successor.load(Ordering::SeqCst);
            let signer = if as_successor { &self.successor } else { &self.ca };
            let request = other.as_deref().unwrap_or(request);
            let mut issued = signer.sign_request(instead.as_ref().unwrap_or(identity), request, ttl)?;
            issued.chain.extend(self.also.lock().unwrap().clone());
            if let Some(roots) = self.roots.lock().unwrap().clone() {
                issued.roots = roots;
            }
            Ok(issued)
        })
    }
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "default", account)
}

fn manager(authority: &Arc<Told>, config: Config) -> Manager {
    Manager::new(Arc::clone(authority) as Arc<dyn Authority>, config)
}

fn impatient() -> Config {
    Config { wait: Duration::from_millis(300), ..Config::default() }
}

async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(value) = probe().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came true: {what}");
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_fetch() {
    let authority = Told::new();
    let manager = manager(&authority, Config::default());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let manager = manager.clone();
        asking.spawn(async move { manager.get(&identity("sleep")).await.unwrap() });
    }
    let certificates = asking.join_all().await;
    assert!(certificates.iter().all(|certificate| Arc::ptr_eq(certificate, &certificates[0])));
    assert_eq!(authority.asked(), 1);
    let certificate = &certificates[0];
    assert_eq!(certificate.identity, identity("sleep"));
    assert!(certificate.not_before < SystemTime::now() && !certificate.is_expired(SystemTime::now()));
    assert!(certificate.not_after > SystemTime::now() + Duration::from_secs(23 * 3600));
    let key = rcgen::KeyPair::try_from(&certificate.key.to_pki()).unwrap();
    assert_eq!(key.serialized_der(), certificate.key.der());
}

#[tokio::test]
async fn no_more_fetches_at_once_than_allowed() {
    let authority = Told::new();
    let manager = manager(&authority, Config { fetches: 3, ..Config::default() });
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..20 {
        let manager = manager.clone();
        asking.spawn(async move { manager.get(&identity(&format!("a{n}"))).await.unwrap() });
    }
    assert_eq!(asking.join_all().await.len(), 20);
    assert_eq!((authority.asked(), authority.most_at_once.load(Ordering::SeqCst)), (20, 3));
    assert_eq!(manager.states().len(), 20);
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_expires() {
    let authority = Told::new();
    let manager = manager(&authority, Config { ttl: Duration::from_secs(4), ..Config::default() });
    let first = manager.get(&identity("sleep")).await.unwrap();
    let next = eventually("another certificate", async || {
        let now = manager.get(&identity("sleep")).await.unwrap();
        (!Arc::ptr_eq(&now, &first)).then_some(now)
    })
    .await;
    assert_ne!(next.chain, first.chain);
    assert_ne!(next.key.der(), first.key.der());
}

#[tokio::test]
async fn a_valid_certificate_stays_while_its_renewal_fails() {
    let authority = Told::new();
    let manager = manager(&authority, Config { ttl: Duration::from_secs(8), ..impatient() });
    let first = manager.get(&identity("sleep")).await.unwrap();
    authority.refuses.store(true, Ordering::SeqCst);
    eventually("a renewal is tried", async || (authority.asked() > 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let still = manager.get(&identity("sleep")).await;
    if SystemTime::now() < first.not_after {
        assert!(Arc::ptr_eq(&still.unwrap(), &first));
    }
    // Once its time is over, it is not given out.
    let error = eventually("it expires", async || manager.get(&identity("sleep")).await.err()).await;
    assert!(first.is_expired(SystemTime::now()), "{error}");
    authority.refuses.store(false, Ordering::SeqCst);
    eventually("another certificate", async || manager.get(&identity("sleep")).await.ok()).await;
}

#[tokio::test]
async fn a_refusal_is_told_and_retried() {
    let authority = Told::new();
    authority.refuses.store(true, Ordering::SeqCst);
    let impatient = manager(&authority, impatient());
    let error = impatient.get(&identity("sleep")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the authority refused a certificate for spiffe://cluster.local/ns/default/sa/sleep: told to"
    );
    assert!(matches!(&impatient.states()[..], [(_, State::Unavailable(_))]));
    let patient = manager(&authority, Config::default());
    let waiting = tokio::spawn(async move { patient.get(&identity("web")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    authority.refuses.store(false, Ordering::SeqCst);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_authority_that_hangs_holds_nobody_up_for_ever() {
    let authority = Told::new();
    authority.hangs.store(true, Ordering::SeqCst);
    let manager = manager(&authority, impatient());
    let error = manager.get(&identity("sleep")).await.unwrap_err();
    assert!(matches!(error, CertificateError::TimedOut { .. }), "{error}");
    let short = Config { fetch_timeout: Duration::from_millis(50), ..impatient() };
    let manager = Manager::new(Arc::clone(&authority) as Arc<dyn Authority>, short);
    let error = manager.get(&identity("sleep")).await.unwrap_err();
    assert!(matches!(error, CertificateError::TimedOut { waited, .. } if waited < short.wait), "{error}");
}

#[tokio::test]
async fn an_answer_for_someone_else_is_refused() {
    let authority = Told::new();
    *authority.instead.lock().unwrap() = Some(identity("other"));
    let error = manager(&authority, impatient()).get(&identity("sleep")).await.unwrap_err();
    assert!(error.to_string().contains("for another identity"), "{error}");
    *authority.instead.lock().unwrap() = None;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    *authority.other_request.lock().unwrap() = Some(request.der().to_vec());
    let error = manager(&authority, impatient()).get(&identity("sleep")).await.unwrap_err();
    assert!(error.to_string().contains("for another key"), "{error}");
}

#[tokio::test]
async fn a_forgotten_identity_is_asked_for_anew() {
    let authority = Told::new();
    let manager = manager(&authority, Config::default());
    let first = manager.get(&identity("sleep")).await.unwrap();
    manager.forget(&identity("sleep"));
    assert!(manager.states().is_empty());
    let second = manager.get(&identity("sleep")).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));

    authority.hangs.store(true, Ordering::SeqCst);
    let asking = manager.clone();
    let waiting = tokio::spawn(async move { asking.get(&identity("web")).await });
    eventually("it waits", async || (authority.asked() == 3).then_some(())).await;
    manager.forget(&identity("web"));
    assert!(matches!(waiting.await.unwrap(), Err(CertificateError::Forgotten { .. })));
}

#[test]
fn it_works_across_runtimes() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let authority = Told::new();
    let control = runtime();
    let manager = control.block_on(async { manager(&authority, Config::default()) });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || control.block_on(stopped));
    manager.warm(&identity("sleep"));
    runtime().block_on(manager.get(&identity("sleep"))).unwrap();
    assert_eq!(authority.asked(), 1);
    drop(stop);
    thread.join().unwrap().unwrap_err();
}

#[tokio::test]
async fn a_key_is_never_printed() {
    let authority = Told::new();
    let certificate = manager(&authority, Config::default()).get(&identity("sleep")).await.unwrap();
    let printed = format!("{certificate:?}");
    assert!(printed.contains("PrivateKey(..)"));
    let key = format!("{:?}", certificate.key.der());
    assert!(!printed.contains(&key[1..key.len() - 1]));
}

/// The one that is signing, held up, while others queue behind it.
async fn held_up(authority: &Arc<Told>) -> Manager {
    authority.hangs.store(true, Ordering::SeqCst);
    let config = Config { fetches: 1, fetch_timeout: Duration::from_millis(500), ..Config::default() };
    let manager = manager(authority, config);
    manager.warm(&identity("first"));
    eventually("the only turn is taken", async || (authority.asked() == 1).then_some(())).await;
    authority.hangs.store(false, Ordering::SeqCst);
    manager
}

#[tokio::test]
async fn a_connection_that_waits_goes_before_a_warm_up() {
    let authority = Told::new();
    let manager = held_up(&authority).await;
    for n in 0..5 {
        manager.warm(&identity(&format!("warm{n}")));
    }
    // One of them becomes urgent, and one that nobody has warmed up is asked for.
    let mut asking = tokio::task::JoinSet::new();
    for account in ["warm4", "urgent"] {
        let manager = manager.clone();
        asking.spawn(async move { manager.get(&identity(account)).await.unwrap() });
    }
    asking.join_all().await;
    let order = authority.order.lock().unwrap().clone();
    let mut urgent = [order[1].clone(), order[2].clone()];
    urgent.sort();
    assert_eq!(urgent, [identity("urgent"), identity("warm4")], "{order:?}");
}

#[tokio::test]
async fn roots_that_come_with_one_answer_are_trusted_for_all() {
    let authority = Told::new();
    let manager = manager(&authority, Config::default());
    let (one, other) = (identity("one"), identity("other"));
    let first = manager.get(&one).await.unwrap();
    assert_eq!(first.roots, [authority.ca.root().clone()]);
    let both = vec![authority.ca.root().clone(), authority.successor.root().clone()];
    *authority.roots.lock().unwrap() = Some(both.clone());
    assert_eq!(manager.get(&other).await.unwrap().roots, both);
    let now = eventually("the first one's roots", async || {
        let now = manager.get(&one).await.unwrap();
        (now.roots == both).then_some(now)
    })
    .await;
    assert_eq!((&now.chain, now.key.der()), (&first.chain, first.key.der()), "it need not be renewed");
    assert_eq!(authority.asked(), 2);
}

#[tokio::test]
async fn a_certificate_of_a_root_that_left_is_renewed_at_once_and_the_root_is_trusted_for_the_grace() {
    let authority = Told::new();
    let config = Config { root_grace: Duration::from_secs(3), ..Config::default() };
    let manager = manager(&authority, config);
    let (one, other) = (identity("one"), identity("other"));
    let first = manager.get(&one).await.unwrap();
    authority.signs_as_successor.store(true, Ordering::SeqCst);
    manager.get(&other).await.unwrap();
    let successor = authority.successor.root().clone();
    let both = [successor.clone(), authority.ca.root().clone()];
    eventually("the old root is still trusted", async || {
        (manager.get(&one).await.unwrap().roots == both).then_some(())
    })
    .await;
    let renewed = eventually("another certificate", async || {
        let now = manager.get(&one).await.unwrap();
        (now.chain != first.chain).then_some(now)
    })
    .await;
    assert!(answer::leads_to(&renewed.chain, std::slice::from_ref(&successor), SystemTime::now()).is_ok());
    eventually("the old root is not trusted any more", async || {
        let roots = [manager.get(&one).await.unwrap(), manager.get(&other).await.unwrap()];
        roots.iter().all(|certificate| certificate.roots == [successor.clone()]).then_some(())
    })
    .await;
    assert_eq!(authority.asked(), 3);
}

#[tokio::test]
async fn all_are_renewed_when_it_is_asked_for() {
    let authority = Told::new();
    let config = Config { spread: Duration::from_millis(100), ..Config::default() };
    let manager = manager(&authority, config);
    let before = [manager.get(&identity("a")).await.unwrap(), manager.get(&identity("b")).await.unwrap()];
    // Either is at rest by then, or will be.
    manager.renew_all();
    for (account, before) in ["a", "b"].into_iter().zip(before) {
        eventually("another certificate", async || {
            let now = manager.get(&identity(account)).await.unwrap();
            (now.chain != before.chain).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_root_in_the_chain_is_not_for_peers() {
    let authority = Told::new();
    authority.also.lock().unwrap().push(authority.ca.root().clone());
    let certificate = manager(&authority, Config::default()).get(&identity("sleep")).await.unwrap();
    assert_eq!(certificate.chain.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_good_is_refused_and_the_last_good_one_stays() {
    type Spoil = fn(&Told);
    let spoils: [(&str, Spoil); 5] = [
        ("does not lead to a root", |told| {
            *told.roots.lock().unwrap() = Some(vec![told.successor.root().clone()]);
        }),
        ("holds no root", |told| *told.roots.lock().unwrap() = Some(vec![])),
        ("a root cannot be read", |told| {
            *told.roots.lock().unwrap() = Some(vec![CertificateDer::from(vec![1, 2, 3])]);
        }),
        ("of the chain cannot be read", |told| {
            *told.also.lock().unwrap() = vec![CertificateDer::from(vec![0x30, 0])];
        }),
        ("more than", |told| {
            *told.also.lock().unwrap() = vec![told.ca.root().clone(); 100];
        }),
    ];
    for (expected, spoil) in spoils {
        let authority = Told::new();
        let held = manager(&authority, Config { spread: Duration::from_millis(1), ..Config::default() });
        let first = held.get(&identity("sleep")).await.unwrap();
        spoil(&authority);
        let error = manager(&authority, impatient()).get(&identity("sleep")).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("sa/sleep"), "{expected}: {error}");
        let asked = authority.asked();
        held.renew_all();
        eventually("it is asked again after a refusal", async || {
            (authority.asked() > asked + 1).then_some(())
        })
        .await;
        assert_eq!(held.get(&identity("sleep")).await.unwrap().chain, first.chain);
        assert_eq!(held.get(&identity("sleep")).await.unwrap().roots, first.roots);
    }
}

#[tokio::test]
async fn what_becomes_of_fetches_and_when_certificates_end_is_told() {
    let authority = Told::new();
    let manager = manager(&authority, impatient());
    let mut registry = Registry::default();
    manager.register(&mut registry);
    let certificate = manager.get(&identity("sleep")).await.unwrap();
    authority.refuses.store(true, Ordering::SeqCst);
    manager.get(&identity("web")).await.unwrap_err();
    let mut told = String::new();
    prometheus_client::encoding::text::encode(&mut told, &registry).unwrap();
    let end = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let root_end = answer::end_of(authority.ca.root()).unwrap();
    let root_end = root_end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let sleep = identity("sleep");
    for line in [
        "culvert_certificate_fetches_total{result=\"issued\"} 1".to_owned(),
        "culvert_certificate_fetches_total{result=\"failed\"} 1".to_owned(),
        "culvert_certificate_fetch_failures_total{reason=\"refused\"} 1".to_owned(),
        "culvert_certificate_fetch_failures_total{reason=\"unreachable\"} 0".to_owned(),
        format!("culvert_certificate_expiry_timestamp_seconds{{identity=\"{sleep}\"}} {end}"),
        "culvert_certificate_identities 2".to_owned(),
        "culvert_certificate_renewals_overdue 0".to_owned(),
        "culvert_root_certificates 1".to_owned(),
        format!("culvert_root_certificate_expiry_timestamp_seconds {root_end}"),
    ] {
        assert!(told.lines().any(|told| *told == line), "{line}\n{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_cuts_a_long_backoff_short_but_asks_no_more_than_once_a_second_or_so() {
    let authority = Told::new();
    authority.refuses.store(true, Ordering::SeqCst);
    let manager = manager(&authority, Config::default());
    manager.warm(&identity("sleep"));
    // After the eighth failure the next attempt is two minutes away.
    eventually("it has failed often", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (authority.asked() == 8).then_some(())
    })
    .await;
    manager.get(&identity("sleep")).await.unwrap_err();
    let asked = authority.asked() - 8;
    assert!((6..=13).contains(&asked), "{asked} times in 10 s");
    // Nobody waits: it is as patient as before.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(authority.asked() - 8 - asked <= 1);
    authority.refuses.store(false, Ordering::SeqCst);
    manager.get(&identity("sleep")).await.unwrap();
}
