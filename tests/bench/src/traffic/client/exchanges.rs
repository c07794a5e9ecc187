//! Exchanges: on connections of their own or on some that stay, one behind the other or at a steady rate.
//!
//! At a steady rate an exchange on a connection that stays counts from when it is begun, unless its connection was busy when
//! it was due: then from there, so that what waits behind a stall is counted as waiting.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{ClientArgs, Outcome, Targets, ready, shape};
use crate::traffic::exchange::{Exchange, Shape};
use crate::traffic::latency::Latencies;
use crate::traffic::poll::{Event, Poll};
use crate::traffic::{CHUNK, Kind};

/// How long exchanges that were begun may take once the time is over.
const LIMIT: Duration = Duration::from_secs(30);
const WAIT: u16 = 100;
/// New connections that are under way at once; what is due beyond that waits, and counts as waiting.
const MOST: usize = 1024;
/// The number of the clock among the events.
const CLOCK: u64 = u64::MAX;

pub(super) fn run(args: &ClientArgs) -> Result<Outcome> {
    let mut client = Client::new(args)?;
    if args.kind != Kind::Connect {
        for _ in 0..args.streams {
            client.open(Instant::now())?;
        }
        client.finish()?;
    } else if args.count.is_none() {
        // What is set up for the first connection alone is not measured.
        client.open(Instant::now())?;
        client.finish()?;
    }
    client.latencies = Latencies::default();
    ready()?;
    let begin = Instant::now();
    if args.kind == Kind::Hold {
        client.live.clear();
        return Ok(Latencies::default().outcome(begin.elapsed().as_secs_f64()));
    }
    match args.rate {
        Some(rate) => client.steadily(begin, rate)?,
        None => client.one_by_one(begin)?,
    }
    client.finish()?;
    Ok(std::mem::take(&mut client.latencies).outcome(begin.elapsed().as_secs_f64()))
}

struct Client<'a> {
    args: &'a ClientArgs,
    shape: Shape,
    targets: Targets<'a>,
    poll: Poll,
    events: Vec<Event>,
    live: HashMap<u64, Exchange>,
    /// Of those that stay, who has nothing to do.
    idle: VecDeque<u64>,
    busy: usize,
    next: u64,
    begun: u64,
    latencies: Latencies,
    buffer: Vec<u8>,
    zeros: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(args: &'a ClientArgs) -> Result<Self> {
        Ok(Self {
            args,
            shape: shape(args),
            targets: Targets::new(args),
            poll: Poll::new()?,
            events: Vec::new(),
            live: HashMap::new(),
            idle: VecDeque::new(),
            busy: 0,
            next: 0,
            begun: 0,
            latencies: Latencies::default(),
            buffer: vec![0; CHUNK],
            zeros: vec![0; CHUNK],
        })
    }

    /// A new connection with an exchange that is due since then.
    fn open(&mut self, since: Instant) -> Result<()> {
        let to: SocketAddr = self.targets.next()?;
        let mut exchange = Exchange::connect(to, self.shape)?;
        exchange.begin(since, self.shape, &self.zeros)?;
        self.poll.add(&exchange.stream, self.next, exchange.is_full)?;
        self.live.insert(self.next, exchange);
        (self.next, self.busy, self.begun) = (self.next + 1, self.busy + 1, self.begun + 1);
        Ok(())
    }

    /// The next exchange, on a connection that has nothing to do or on a new one; false if all are busy.
    fn begin(&mut self, since: Instant) -> Result<bool> {
        if self.args.kind == Kind::Connect {
            return Ok(self.busy < MOST && self.open(since).map(|()| true)?);
        }
        let Some(number) = self.idle.pop_front() else { return Ok(false) };
        let Some(exchange) = self.live.get_mut(&number) else { return Ok(false) };
        exchange.begin(since, self.shape, &self.zeros)?;
        if exchange.is_full {
            self.poll.change(&exchange.stream, number, true)?;
        }
        (self.busy, self.begun) = (self.busy + 1, self.begun + 1);
        Ok(true)
    }

    /// Takes what happens within a moment.
    fn look(&mut self) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        self.poll.wait(WAIT, &mut events)?;
        for event in &events {
            if event.number == CLOCK {
                continue;
            }
            let Some(exchange) = self.live.get_mut(&event.number) else { continue };
            let was_full = exchange.is_full;
            if was_full && event.writable {
                exchange.write(&self.zeros)?;
            }
            if was_full != exchange.is_full {
                self.poll.change(&exchange.stream, event.number, exchange.is_full)?;
            }
            if exchange.since.is_some() && exchange.read(&mut self.buffer)? {
                self.busy -= 1;
                if let Some(since) = exchange.since.take() {
                    self.latencies.add(since.elapsed());
                }
                match self.args.kind {
                    Kind::Connect => drop(self.live.remove(&event.number)),
                    _ => self.idle.push_back(event.number),
                }
            }
        }
        self.events = events;
        Ok(())
    }

    /// As many at once as there are streams, one behind the other.
    fn one_by_one(&mut self, begin: Instant) -> Result<()> {
        let end = begin + Duration::from_secs_f64(self.args.seconds);
        let first = self.begun;
        loop {
            let is_over = match self.args.count {
                Some(count) => self.begun - first >= count,
                None => Instant::now() >= end,
            };
            if is_over {
                return Ok(());
            }
            while self.busy < self.args.streams && self.begin(Instant::now())? {
                if self.args.count.is_some_and(|count| self.begun - first >= count) {
                    return Ok(());
                }
            }
            self.look()?;
        }
    }

    /// So many a second, whatever becomes of those before.
    fn steadily(&mut self, begin: Instant, rate: f64) -> Result<()> {
        let clock = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let period = TimeSpec::from_duration(Duration::from_secs_f64(1.0 / rate));
        clock.set(Expiration::Interval(period), TimerSetTimeFlags::empty())?;
        self.poll.add(&clock, CLOCK, false)?;
        let all = (rate * self.args.seconds) as u64;
        let mut done = 0;
        while done < all {
            self.look()?;
            // That it has not rung yet is no failure.
            let _ = clock.wait();
            let due = ((begin.elapsed().as_secs_f64() * rate) as u64).min(all);
            while done < due {
                let on_time = done + 1 == due;
                let since = begin + Duration::from_secs_f64((done + 1) as f64 / rate);
                if !self.begin(if on_time { Instant::now() } else { since })? {
                    break;
                }
                done += 1;
            }
        }
        Ok(())
    }

    /// Waits until nothing is under way.
    fn finish(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.busy > 0 {
            self.look()?;
            ensure!(begin.elapsed() < LIMIT, "{} exchanges did not end within {LIMIT:?}", self.busy);
        }
        Ok(())
    }
}
