//! Files of revoked certificates.

use control::fuzzing;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// What is taken is lists, whole and all of them; and each alone is the same list.
///
/// # Panics
/// When something does not hold.
pub fn crl(data: &[u8]) {
    let (lists, first_end) = match fuzzing::crl(data) {
        Ok(read) => read,
        Err(why) => return assert!(!why.is_empty() && why.len() < 4096, "{why}"),
    };
    assert!(!lists.is_empty() && lists.iter().map(Vec::len).sum::<usize>() <= data.len());
    let mut ends = Vec::new();
    for list in &lists {
        let Ok(([], parsed)) = CertificateRevocationList::from_der(list) else {
            panic!("{list:?} is no list")
        };
        ends.extend(parsed.next_update().map(|end| end.timestamp()));
        // As PEM looks for its marks within bytes, a list may hold one.
        if !list.windows(10).any(|bytes| bytes == b"-----BEGIN") {
            assert_eq!(fuzzing::crl(list).map(|read| read.0), Ok(vec![list.clone()]));
        }
    }
    assert_eq!(first_end, ends.into_iter().min());
}
