//! The impairments do to packets what they say: else a storm would be a calm.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos::impairment::{Impairment, Rates};
use chaos::slow::Slow;
use harness::inside::in_netns;
use harness::wire::Station;
use harness::{Run, Wire};
use nix::net::if_::if_nametoindex;
use socket2::SockRef;

/// Datagrams that are sent; enough for a rate to show, and few enough for any queue.
const SENT: usize = 1000;
/// Nothing more comes after this.
const QUIET: Duration = Duration::from_secs(2);
const PORT: u16 = 9000;

/// A wire with a sender and a receiver, towards which packets are spoiled.
struct Line {
    impairment: Impairment,
    slow: Slow,
    sender: UdpSocket,
    receiver: UdpSocket,
    // Last, for it takes all down.
    _wire: std::sync::Arc<Wire>,
}

impl Line {
    fn new() -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let (from, to) = (wire.add_host("from")?, wire.add_host("to")?);
        let slow = Slow::before(wire.netns(), "port2", 1)?;
        let index = in_netns(wire.netns(), || if_nametoindex("port2"))??;
        let impairment = Impairment::new(wire.netns(), index, slow.interface)?;
        let bind = |at: &Station| -> Result<UdpSocket> {
            let address = (at.addresses().0, PORT);
            in_netns(&at.netns, || UdpSocket::bind(address))?.context("binding")
        };
        let (sender, receiver) = (bind(&from)?, bind(&to)?);
        SockRef::from(&receiver).set_recv_buffer_size(8 << 20)?;
        receiver.set_read_timeout(Some(QUIET))?;
        sender.connect((to.addresses().0, PORT))?;
        Ok(Self { impairment, slow, sender, receiver, _wire: wire })
    }

    /// The numbers of the datagrams that arrive, in their order.
    fn send(&self) -> Result<Vec<usize>> {
        for number in 0..SENT {
            self.sender.send(&number.to_be_bytes())?;
        }
        let (mut arrived, mut number) = (Vec::new(), [0; size_of::<usize>()]);
        while let Ok(length) = self.receiver.recv(&mut number) {
            ensure!(length == number.len(), "{length} bytes");
            arrived.push(usize::from_be_bytes(number));
        }
        Ok(arrived)
    }
}

fn distinct(arrived: &[usize]) -> usize {
    arrived.iter().collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn packets_are_lost_doubled_and_late_as_often_as_is_said_and_not_when_it_is_over() -> Result<()> {
    let mut line = Line::new()?;
    let whole: Vec<usize> = (0..SENT).collect();
    ensure!(line.send()? == whole, "a line is to be whole before it is spoiled");

    line.impairment.set(Rates { lost: 200, ..Rates::default() })?;
    let arrived = line.send()?;
    ensure!((SENT / 2..SENT * 9 / 10).contains(&arrived.len()), "{} of {SENT} arrive", arrived.len());
    ensure!(arrived.is_sorted() && distinct(&arrived) == arrived.len(), "lost, and nothing else");

    line.impairment.set(Rates { doubled: 300, ..Rates::default() })?;
    let arrived = line.send()?;
    ensure!((SENT * 11 / 10..SENT * 15 / 10).contains(&arrived.len()), "{} of {SENT} arrive", arrived.len());
    ensure!(distinct(&arrived) == SENT, "none is lost");

    line.impairment.set(Rates { late: 200, ..Rates::default() })?;
    let arrived = line.send()?;
    ensure!(arrived.len() == SENT && distinct(&arrived) == SENT, "{} of {SENT} arrive", arrived.len());
    ensure!(!arrived.is_sorted(), "some are overtaken");
    ensure!(line.slow.held() > 0);

    line.impairment.clear()?;
    ensure!(line.send()? == whole, "a line is to be whole again");
    Ok(())
}
