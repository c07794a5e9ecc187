//! Texts of a mesh file, each once while the file is read.
//!
//! What thousands of workloads say is kept once from the start: what is dropped between what stays would leave holes that
//! nothing fills. Invariant: a thread knows texts only while it reads a file, and a text is equal to what was written.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mesh::NamespacedHostname;

thread_local! {
    static KNOWN: RefCell<HashSet<Arc<str>, RandomState>> = RefCell::default();
}

/// Calls a function that reads, and forgets the texts that it came across.
pub(super) fn remembering<T>(read: impl FnOnce() -> T) -> T {
    let read = read();
    KNOWN.take();
    read
}

/// A text, which is the same as an equal one that was read before.
pub(super) fn text(text: &str) -> Arc<str> {
    KNOWN.with_borrow_mut(|known| match known.get(text) {
        Some(same) => Arc::clone(same),
        None => {
            let new = Arc::from(text);
            known.insert(Arc::clone(&new));
            new
        }
    })
}

/// The name of a service, of texts as [`text`] makes them.
pub(super) fn hostname(name: &NamespacedHostname) -> NamespacedHostname {
    NamespacedHostname { namespace: text(&name.namespace), hostname: text(&name.hostname) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_until_the_file_is_read() {
        let one = remembering(|| {
            let (one, other) = (text("one"), text(&String::from("one")));
            assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &text("other")));
            one
        });
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
