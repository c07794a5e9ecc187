//! Replays what is kept of each target.

use std::path::Path;

#[test]
fn what_is_kept_of_each_target_still_holds() {
    for (name, target) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut count = 0;
        for entry in
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count >= 5, "{name} has {count} inputs");
    }
}

/// A target that cannot fail finds nothing.
#[test]
fn targets_take_anything() {
    for (_, target) in fuzz::TARGETS {
        for length in [0, 1, 2, 11, 12, 13, 17, 64, 600] {
            for byte in [0, 1, 0x7f, 0xff] {
                target(&vec![byte; length]);
            }
        }
    }
}
