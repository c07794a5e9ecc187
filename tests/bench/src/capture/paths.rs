//! Rates and throughput of every leg, variant beside variant.
//!
//! One round measures each leg: a slice without capture, with the product, with iptables, in an order that turns around
//! from round to round. Each slice is divided by the slice without capture of the same leg and round, and the median of
//! those ratios is the figure: a disturbance that lasts longer than a round hits both, a shorter one is an outlier.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lane::{Lanes, Leg, Variant};
use super::switch::Switch;
use crate::load;
use crate::stats::Spread;

/// What is measured of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Short connections a second.
    Rate,
    /// Bytes a second.
    Bulk,
}

impl Quantity {
    /// The legs for which it is measured: bulk data of a delivery takes the way of outbound data.
    pub(crate) fn legs(self) -> &'static [Leg] {
        match self {
            Self::Rate => &Leg::ALL,
            Self::Bulk => &[Leg::Outbound, Leg::Network, Leg::Inbound],
        }
    }

    fn measure(self, connect: &dyn Fn() -> io::Result<TcpStream>, slice: Duration) -> Result<f64> {
        match self {
            Self::Rate => load::rate(connect, slice),
            Self::Bulk => load::throughput(connect, slice),
        }
    }
}

/// The outcome of one leg.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) leg: Leg,
    /// Without capture, in connections or bytes a second.
    pub(crate) base: Spread,
    /// The product's ratio to it.
    pub(crate) culvert: Spread,
    /// That of iptables; none for a leg that it has not.
    pub(crate) iptables: Option<Spread>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
}

/// Measures one quantity on all its legs.
pub(crate) fn measure(
    lanes: &Lanes,
    switch: &mut Switch,
    quantity: Quantity,
    effort: Effort,
) -> Result<Vec<Outcome>> {
    let mut samples: Vec<(Leg, Variant, f64)> = Vec::new();
    for round in 0..=effort.rounds {
        let mut order = Variant::ALL;
        if round % 2 == 1 {
            order.reverse();
        }
        for leg in quantity.legs() {
            for variant in order {
                let value = slice(lanes, switch, (*leg, variant), quantity, effort.slice)?;
                // The first round fills caches and tables.
                samples.extend(value.filter(|_| round > 0).map(|value| (*leg, variant, value)));
            }
        }
    }
    let of = |leg, variant| -> Vec<f64> {
        samples.iter().filter(|(l, v, _)| (*l, *v) == (leg, variant)).map(|(_, _, value)| *value).collect()
    };
    let outcomes = quantity.legs().iter().map(|leg| {
        let base = of(*leg, Variant::None);
        let ratio = |variant| {
            let ratios: Vec<f64> =
                of(*leg, variant).iter().zip(&base).map(|(value, base)| value / base).collect();
            (!ratios.is_empty()).then(|| Spread::of(ratios))
        };
        let culvert = ratio(Variant::Culvert).context("a leg without capture")?;
        Ok(Outcome { leg: *leg, culvert, iptables: ratio(Variant::Iptables), base: Spread::of(base) })
    });
    outcomes.collect()
}

fn slice(
    lanes: &Lanes,
    switch: &mut Switch,
    (leg, variant): (Leg, Variant),
    quantity: Quantity,
    time: Duration,
) -> Result<Option<f64>> {
    let Some(lane) = lanes.find(leg, variant) else { return Ok(None) };
    switch.set((variant == Variant::Culvert).then(|| leg.part()))?;
    let guard = lane.stand.as_ref().map(linux::netns::Netns::enter).transpose()?;
    let value = quantity.measure(&lane.connect, time).with_context(|| format!("{leg}, {variant:?}"))?;
    drop(guard);
    Ok(Some(value))
}
