//! A mesh of any size, the same each time: pods behind services, spread over nodes.

use std::net::{IpAddr, Ipv4Addr};

use crate::build::{service, uid, workload};
use crate::wire::workload::{Service, Workload};
use crate::world::World;

/// How many pods a node runs.
const PODS: u32 = 100;
/// The first address of pods, and that of services.
const POD_ADDRESSES: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const SERVICE_ADDRESSES: u32 = u32::from_be_bytes([172, 24, 0, 0]);

/// How large a mesh is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many pods.
    pub workloads: u32,
    /// How many services; pod `n` is behind service `n` modulo this.
    pub services: u32,
}

/// Puts a mesh into a world, beside what is there.
pub fn fill(world: &mut World, size: Size) {
    let services: Vec<_> = (0..size.services).map(nth_service).collect();
    for number in 0..size.workloads {
        world.set(nth_workload(number, 0, &services));
    }
    for service in services {
        world.set(service);
    }
}

/// Changes one pod: each round it has another revision of its software, and every second time it is not healthy.
pub fn churn(world: &mut World, size: Size, round: u32) {
    let number = round.checked_rem(size.workloads).unwrap_or_default();
    let behind = number.checked_rem(size.services).map(nth_service);
    let services: Vec<_> = behind.into_iter().collect();
    let mut pod = nth_workload(number, round, &services);
    pod.status = i32::from(round % 2 == 1);
    world.set(pod);
}

/// The name of the nth pod.
pub fn nth_uid(number: u32) -> String {
    uid(&namespace(number), &format!("pod-{number}"))
}

fn nth_service(number: u32) -> Service {
    let address = Ipv4Addr::from(SERVICE_ADDRESSES.wrapping_add(number));
    service(&namespace(number), &format!("service-{number}")).at(address).port(80, 8080)
}

fn nth_workload(number: u32, revision: u32, services: &[Service]) -> Workload {
    let address = IpAddr::from(Ipv4Addr::from(POD_ADDRESSES.wrapping_add(number)));
    let name = format!("pod-{number}");
    let mut pod = workload(&namespace(number), &name)
        .at(address)
        .on(&format!("generated-{}", number / PODS))
        .running_as(&format!("account-{}", number % 16));
    pod.canonical_name = format!("app-{}", number % 1000);
    pod.canonical_revision = format!("v{revision}");
    let count = services.len().max(1);
    let behind = usize::try_from(number).ok().and_then(|number| services.get(number % count));
    match behind {
        Some(service) => pod.behind(service, 80, 8080),
        None => pod,
    }
}

fn namespace(number: u32) -> String {
    format!("generated-{}", number % 50)
}
