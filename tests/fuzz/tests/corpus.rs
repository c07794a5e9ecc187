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

/// A small generator (xorshift64*), so that every run takes the same inputs.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }

    /// Changes a few bytes: sets, inserts, removes, or cuts the end off.
    fn change(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(data.len());
            let any = self.below(256) as u8;
            let byte = [0, 1, 0x3f, 0x40, 0xc0, 0xff].get(self.below(7)).copied().unwrap_or(any);
            match self.below(5) {
                0 if !data.is_empty() => drop(data.remove(at)),
                1 => data.insert(at, byte),
                2 if self.below(4) == 0 => data.truncate(at),
                _ => match data.get_mut(at) {
                    Some(slot) => *slot = byte,
                    None => data.push(byte),
                },
            }
        }
    }
}

/// What libFuzzer does at length, in short: inputs near those that are kept.
#[test]
fn changed_inputs_hold_as_well() {
    const ROUNDS: usize = 300;
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for (name, target) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut kept: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        kept.sort();
        for path in kept {
            let original = std::fs::read(&path).unwrap();
            for _ in 0..ROUNDS {
                let mut data = original.clone();
                chance.change(&mut data);
                let held = std::panic::catch_unwind(|| target(&data));
                assert!(held.is_ok(), "{name}: {data:?}");
            }
        }
    }
}
