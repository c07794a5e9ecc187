use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::PKCS_ECDSA_P256_SHA256;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn identity() -> Identity {
    Identity::new("cluster.local", "default", "sleep")
}

/// A request that asks for someone else's name.
fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec!["somebody.example".to_owned()]).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[test]
fn a_leaf_is_what_peers_expect() {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    let issued = ca.sign_request(&identity(), &request(), HOUR).unwrap();
    assert_eq!((issued.chain.len(), issued.roots.as_slice()), (1, &[ca.root().clone()][..]));
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let (_, root) = X509Certificate::from_der(ca.root()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    root.verify_signature(None).unwrap();

    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/default/sa/sleep")]);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.issuer(), root.subject());
    assert!(!leaf.is_ca() && root.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());

    let (now, validity) = (seconds(SystemTime::now()), leaf.validity());
    assert!((115..=180).contains(&(now - validity.not_before.timestamp())));
    assert!((3540..=3600).contains(&(validity.not_after.timestamp() - now)));
    let again = ca.sign_request(&identity(), &request(), HOUR).unwrap();
    let (_, other) = X509Certificate::from_der(&again.chain[0]).unwrap();
    assert_ne!(leaf.raw_serial(), other.raw_serial());
}

#[test]
fn a_leaf_does_not_outlive_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    for ttl in [Duration::from_secs(100 * 365 * 24 * 3600), Duration::MAX] {
        let issued = ca.sign_request(&identity(), &request(), ttl).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let (_, root) = X509Certificate::from_der(ca.root()).unwrap();
        assert_eq!(leaf.validity().not_after, root.validity().not_after);
    }
}

#[test]
fn what_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    let foreign = Identity::new("elsewhere.example", "default", "sleep");
    let error = ca.sign_request(&foreign, &request(), HOUR).unwrap_err().to_string();
    assert!(error.contains("the authority is of trust domain cluster.local"), "{error}");
    let mut forged = request();
    *forged.last_mut().unwrap() ^= 1;
    for bad in [&b"nonsense"[..], &forged] {
        let error = ca.sign_request(&identity(), bad, HOUR).unwrap_err().to_string();
        assert!(error.contains("the request is no good"), "{error}");
    }
}

#[test]
fn the_root_is_kept_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("deep/ca");
    let first = LocalCa::open_or_create(&home, "cluster.local").unwrap();
    let second = LocalCa::open_or_create(&home, "cluster.local").unwrap();
    assert_eq!(first.root(), second.root());
    assert_eq!(mode(&home), 0o700);
    assert_eq!((mode(&home.join("root-key.pem")), mode(&home.join("root-cert.pem"))), (0o600, 0o644));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 2, "something was left over");
    assert!(!format!("{first:?}").contains("PRIVATE"));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    let key = dir.path().join("root-key.pem");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = LocalCa::open_or_create(dir.path(), "cluster.local").unwrap_err();
        assert!(matches!(error, CaError::OpenKey { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains("chmod 600") && words.contains(&format!("{mode:04o}")), "{words}");
    }
}

#[test]
fn many_at_once_agree_on_one_root() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let roots: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                LocalCa::open_or_create(dir.path(), "cluster.local").unwrap().root().clone()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn a_creation_that_was_cut_short_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    let key = fs::read(dir.path().join("root-key.pem")).unwrap();
    fs::remove_file(dir.path().join("root-cert.pem")).unwrap();
    LocalCa::open_or_create(dir.path(), "cluster.local").unwrap();
    assert_eq!(fs::read(dir.path().join("root-key.pem")).unwrap(), key);
}

#[test]
fn files_that_are_no_good_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = ["root-cert.pem", "root-key.pem"].map(|name| dir.path().join(name));
    let open = || LocalCa::open_or_create(dir.path(), "cluster.local").map(drop);
    open().unwrap();
    let good = fs::read(&cert).unwrap();
    fs::write(&cert, "nonsense").unwrap();
    assert!(matches!(open(), Err(CaError::Malformed { path, .. }) if path == cert));
    fs::write(&cert, good).unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    fs::write(&key, other.serialize_pem()).unwrap();
    assert!(matches!(open(), Err(CaError::Mismatch { .. })));
    fs::write(&key, "nonsense").unwrap();
    assert!(matches!(open(), Err(CaError::Malformed { path, .. }) if path == key));
}
