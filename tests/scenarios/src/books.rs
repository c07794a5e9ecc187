//! The cast: the services of Bookinfo, who serves them, and as whom.

use std::net::SocketAddr;

use anyhow::Result;
use harness::mesh_file::Service;

use crate::stage::{Stage, at, vips};

/// Where all of them listen.
pub(crate) const PORT: u16 = 9080;
/// The accounts.
pub(crate) const PRODUCTPAGE: &str = "bookinfo-productpage";
const DETAILS: &str = "bookinfo-details";
pub(crate) const REVIEWS: &str = "bookinfo-reviews";
const RATINGS: &str = "bookinfo-ratings";

/// A service of the book shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Book {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

impl Book {
    /// What the service and its pods are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        }
    }

    /// As whom it runs.
    pub(crate) fn account(self) -> &'static str {
        match self {
            Self::Productpage => PRODUCTPAGE,
            Self::Details => DETAILS,
            Self::Reviews => REVIEWS,
            Self::Ratings => RATINGS,
        }
    }

    fn octet(self) -> u8 {
        match self {
            Self::Productpage => 20,
            Self::Details => 21,
            Self::Reviews => 22,
            Self::Ratings => 23,
        }
    }

    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(self) -> [SocketAddr; 2] {
        at(vips(self.octet()), PORT)
    }

    /// Makes the service known.
    pub(crate) fn announce(self, stage: &mut Stage) -> Service {
        stage.service(self.name(), self.octet(), PORT)
    }

    /// Whom a pod of it asks, one by IPv4 and one by IPv6: version 1 of the reviews shows no stars, the others do.
    fn calls(self, version: &str) -> Vec<(&'static str, SocketAddr)> {
        let [details, _] = Self::Details.addresses();
        let [_, reviews] = Self::Reviews.addresses();
        let [ratings, _] = Self::Ratings.addresses();
        match self {
            Self::Productpage => vec![("details", details), ("reviews", reviews)],
            Self::Reviews if version != "v1" => vec![("ratings", ratings)],
            Self::Details | Self::Reviews | Self::Ratings => Vec::new(),
        }
    }
}

/// A pod of a service on a node, in the mesh and serving. Where there are several versions its name tells which it is.
pub(crate) fn perform(
    stage: &mut Stage,
    service: &Service,
    book: Book,
    version: &str,
    node: usize,
) -> Result<()> {
    let name = match book {
        Book::Reviews => format!("{}-{version}", book.name()),
        Book::Productpage | Book::Details | Book::Ratings => book.name().to_owned(),
    };
    let workload = stage.member(&name, book.account(), node)?;
    workload.canonical_name = book.name().to_owned();
    workload.canonical_revision = version.to_owned();
    workload.services.insert(service.key(), service.ports.clone());
    stage.serve(&name, PORT, &book.calls(version))
}
