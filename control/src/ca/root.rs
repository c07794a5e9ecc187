//! The root's two files.
//!
//! Creation is safe between processes without a lock: each file is written under a name of its own and linked
//! into place, which succeeds for one of them; all then read what is there. The certificate follows from the
//! key, so a creation that was cut short after the key is completed by whoever comes next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::{BACKDATE, CaError, serial};

const CERTIFICATE: &str = "root-cert.pem";
const KEY: &str = "root-key.pem";
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

pub(super) struct Root {
    pub(super) key: KeyPair,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) expires: SystemTime,
}

pub(super) fn open_or_create(dir: &Path, trust_domain: &str) -> Result<Root, CaError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("create the directory", dir))?;
    let key_path = dir.join(KEY);
    let key = match read_key(&key_path)? {
        Some(key) => key,
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .map_err(|source| CaError::Crypto { operation: "generate the root key", source })?;
            place(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
            read_key(&key_path)?.ok_or_else(|| vanished(&key_path))?
        }
    };
    let certificate_path = dir.join(CERTIFICATE);
    let pem = match read(&certificate_path)? {
        Some(pem) => pem,
        None => {
            place(&certificate_path, self_signed(&key, trust_domain)?.as_bytes(), 0o644)?;
            read(&certificate_path)?.ok_or_else(|| vanished(&certificate_path))?
        }
    };
    let (certificate, expires) = check(dir, &certificate_path, &pem, &key)?;
    Ok(Root { key, certificate, expires })
}

fn self_signed(key: &KeyPair, trust_domain: &str) -> Result<String, CaError> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Culvert local root");
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + LIFETIME).into();
    params.serial_number = Some(serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(key)
        .map_err(|source| CaError::Crypto { operation: "make the root certificate", source })?;
    Ok(certificate.pem())
}

/// The certificate, if it is one, of that key, an authority's and in its time.
fn check(
    dir: &Path,
    path: &Path,
    pem: &[u8],
    key: &KeyPair,
) -> Result<(CertificateDer<'static>, SystemTime), CaError> {
    let malformed = |reason: String| CaError::Malformed { path: path.to_owned(), reason };
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| malformed(error.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(CaError::Mismatch { dir: dir.to_owned() });
    }
    if !parsed.is_ca() {
        return Err(malformed("it is not the certificate of an authority".to_owned()));
    }
    let expires = u64::try_from(parsed.validity().not_after.timestamp())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .map_err(|_| malformed("its validity is out of range".to_owned()))?;
    if expires <= SystemTime::now() {
        return Err(CaError::Expired { path: path.to_owned() });
    }
    Ok((der.clone(), expires))
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, CaError> {
    let Some(file) = open(path)? else { return Ok(None) };
    // The mode is that of the file that is read, whatever becomes of its name.
    let mode = file.metadata().map_err(io_error("look at", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CaError::OpenKey { path: path.to_owned(), mode });
    }
    let malformed = |reason: String| CaError::Malformed { path: path.to_owned(), reason };
    let pem = Zeroizing::new(contents(file).map_err(io_error("read", path))?);
    let text = std::str::from_utf8(&pem).map_err(|_| malformed("it is not PEM".to_owned()))?;
    let key = KeyPair::from_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256);
    key.map(Some).map_err(|error| malformed(format!("it holds no P-256 key: {error}")))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CaError> {
    let Some(file) = open(path)? else { return Ok(None) };
    contents(file).map(Some).map_err(io_error("read", path))
}

fn open(path: &Path) -> Result<Option<File>, CaError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("open", path)(error)),
    }
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a file in its place whole, unless there is one already.
fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{:016x}", std::process::id(), rand::random::<u64>()));
    let own = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&own)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(io_error("write", &own));
    let linked = written.and_then(|()| match fs::hard_link(&own, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("create", path)(error)),
        _ => Ok(()),
    });
    // Only a leftover of ours; what matters is in its place or reported.
    let _ = fs::remove_file(&own);
    linked
}

fn vanished(path: &Path) -> CaError {
    io_error("read back", path)(io::ErrorKind::NotFound.into())
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::Io { operation, path, source }
}
