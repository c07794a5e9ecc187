//! Packets that are lost, doubled or late: a classifier on the way out of an interface, written for each case anew.
//!
//! Its rates are in its instructions, so it needs no map; a change is another program in its place, put there in one step. A copy
//! passes the program again and is known by its mark, which is zero on all others: the kernel takes marks off where packets
//! change namespaces. What is to be late is sent to another interface, where [`crate::slow`] holds it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use linux::netlink::tc::{Filters, Place};
use linux::netns::Netns;
use linux::testing::{Instruction, load_classifier};

/// Where the program is among others of the interface.
const PLACE: Place = Place { preference: 1, handle: 1 };
const NAME: &str = "chaos";
/// Rates are of so many packets.
const OF: i32 = 1000;
/// On a copy.
const MARK: i32 = 0x00c4_a052;
/// Of `struct __sk_buff`.
const MARK_OFFSET: i16 = 8;
const PRANDOM: i32 = 7;
const CLONE_REDIRECT: i32 = 13;
const REDIRECT: i32 = 23;
/// `TC_ACT_UNSPEC`
const PASS: i32 = -1;
/// `TC_ACT_SHOT`
const DROP: i32 = 2;

/// How many of a thousand packets meet what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Do not arrive.
    pub lost: u16,
    /// Arrive twice.
    pub doubled: u16,
    /// Arrive late.
    pub late: u16,
}

/// The place of a program on an interface; what is there goes with the interface.
#[derive(Debug)]
pub struct Impairment {
    filters: Filters,
    interface: u32,
    slow: u32,
}

impl Impairment {
    /// On the way out of `interface` of a namespace, with `slow` for what is to be late.
    pub fn new(netns: &Path, interface: u32, slow: u32) -> Result<Self> {
        let mut filters = Filters::open(&Netns::open(netns)?)?;
        filters
            .add_qdisc(interface)
            .context("a clsact qdisc: does the kernel have CONFIG_NET_SCH_INGRESS?")?;
        Ok(Self { filters, interface, slow })
    }

    /// From now on packets meet this.
    pub fn set(&mut self, rates: Rates) -> Result<()> {
        let Rates { lost, doubled, late } = rates;
        let sum = i32::from(lost) + i32::from(doubled) + i32::from(late);
        ensure!(sum <= OF, "{rates:?}: more than all packets");
        let program = load_classifier(NAME, &program(rates, self.interface, self.slow))?;
        self.filters.set(self.interface, PLACE, NAME, &program).context("spoil packets")
    }

    /// From now on all packets pass.
    pub fn clear(&mut self) -> Result<()> {
        self.filters.remove(self.interface, PLACE).context("spoil packets no more")
    }
}

/// The instructions (RFC 9669). Register 6 keeps the packet.
fn program(rates: Rates, interface: u32, slow: u32) -> Vec<Instruction> {
    let copy = |to, from| Instruction::new(0xbf, to, from, 0, 0);
    let set = |to, value| Instruction::new(0xb7, to, 0, 0, value);
    let call = |helper| Instruction::new(0x85, 0, 0, 0, helper);
    let less = |than: u16, ahead| Instruction::new(0xa5, 0, 0, ahead, i32::from(than));
    let store_mark = Instruction::new(0x63, 6, 1, MARK_OFFSET, 0);
    let end = Instruction::new(0x95, 0, 0, 0, 0);
    let (doubled, late) = (rates.lost + rates.doubled, rates.lost + rates.doubled + rates.late);
    let judge = [
        copy(6, 1),
        Instruction::new(0x61, 1, 6, MARK_OFFSET, 0),
        // A copy: to the last part.
        Instruction::new(0x15, 1, 0, 23, MARK),
        call(PRANDOM),
        // Of 32 bits, without sign.
        Instruction::new(0x94, 0, 0, 0, OF),
        less(rates.lost, 4),
        less(doubled, 5),
        less(late, 14),
        set(0, PASS),
        end,
    ];
    let lose = [set(0, DROP), end];
    let double = [
        set(1, MARK),
        store_mark,
        copy(1, 6),
        set(2, interface.cast_signed()),
        set(3, 0),
        call(CLONE_REDIRECT),
        set(1, 0),
        store_mark,
        set(0, PASS),
        end,
    ];
    let delay = [set(1, slow.cast_signed()), set(2, 0), call(REDIRECT), end];
    let pass_copy = [set(1, 0), store_mark, set(0, PASS), end];
    [judge.as_slice(), &lose, &double, &delay, &pass_copy].concat()
}
