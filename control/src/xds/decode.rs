//! From what is on the wire to what the mesh is made of.
//!
//! Pure functions. Invariants: what decodes obeys what the mesh takes for granted (a uid, canonical addresses, names that
//! an identity can carry, ports that are ports); what does not is an error that names the resource and the field, and
//! nothing of that resource is taken over. What is absent means what it means on the wire. What is new to us and cannot be
//! left out of account makes a policy stricter, never weaker.

mod place;
mod policy;
mod service;
mod text;
mod workload;

#[cfg(test)]
mod tests;

use std::fmt;

use mesh::{Policy, Service, Workload};
use prost::Message;

use super::{ADDRESS, AUTHORIZATION};
use crate::proto::discovery::Resource;
use crate::proto::workload::{Address as Wire, address::Type};

/// What a resource of type `istio.workload.Address` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A workload.
    Workload(Workload),
    /// A service.
    Service(Service),
}

/// A resource that cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {fault}")]
pub struct DecodeError {
    /// Its name.
    pub resource: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a resource: a field, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    field: &'static str,
    reason: String,
}

impl Fault {
    fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    /// A number that stands for nothing that is known here.
    fn unknown(field: &'static str, value: i32) -> Self {
        Self::new(field, format!("{value} is not known"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Decodes a resource of type `istio.workload.Address`.
///
/// # Errors
/// A [`DecodeError`] if it is none that can be taken over.
pub fn address(resource: &Resource) -> Result<Address, DecodeError> {
    let decoded = body::<Wire>(resource, ADDRESS).and_then(|wire| match wire.r#type {
        Some(Type::Workload(wire)) => {
            let workload = workload::workload(wire)?;
            named(resource, &workload.uid)?;
            Ok(Address::Workload(workload))
        }
        Some(Type::Service(wire)) => {
            let service = service::service(wire)?;
            named(resource, &service.key().to_string())?;
            Ok(Address::Service(service))
        }
        None => Err(Fault::new("type", "it is neither a workload nor a service")),
    });
    decoded.map_err(|fault| DecodeError { resource: resource.name.clone(), fault })
}

/// Decodes a resource of type `istio.security.Authorization`.
///
/// # Errors
/// A [`DecodeError`] if it is none that can be taken over.
pub fn authorization(resource: &Resource) -> Result<Policy, DecodeError> {
    let decoded = body(resource, AUTHORIZATION).and_then(|wire| {
        let policy = policy::policy(wire)?;
        named(resource, &policy.key())?;
        Ok(policy)
    });
    decoded.map_err(|fault| DecodeError { resource: resource.name.clone(), fault })
}

fn body<M: Message + Default>(resource: &Resource, type_url: &str) -> Result<M, Fault> {
    let Some(any) = &resource.resource else {
        return Err(Fault::new("resource", "there is none"));
    };
    if any.type_url != type_url {
        let given: String = any.type_url.chars().take(100).collect();
        return Err(Fault::new("type_url", format!("`{given}` is not `{type_url}`")));
    }
    M::decode(any.value.clone()).map_err(|error| Fault::new("resource", error.to_string()))
}

/// A resource is removed by its name, so the name must be what it is kept under.
fn named(resource: &Resource, key: &str) -> Result<(), Fault> {
    if resource.name == key { Ok(()) } else { Err(Fault::new("name", format!("what it holds is {key}"))) }
}
