use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::ca::LocalCa;

/// A local authority that counts, and does as it is told.
struct Told {
    ca: LocalCa,
    _dir: tempfile::TempDir,
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
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Self {
            ca: LocalCa::open_or_create(dir.path(), "cluster.local").unwrap(),
            _dir: dir,
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
            self.ca.sign_request(
                instead.as_ref().unwrap_or(identity),
                other.as_deref().unwrap_or(request),
                ttl,
            )
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
