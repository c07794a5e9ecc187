//! Programs of others on the hooks that capture uses: who they are, and whether they get in its way.
//!
//! The kernel runs all programs of a hook, and what they may do to each other differs. On a namespace the sk_lookup program
//! that runs last has the last word, so ours must be that; one of another installation of ours is left alone, for two
//! would go on outdoing each other. On cgroups the order does not matter: a program that rewrites the destination of connect(2), as a
//! socket load balancer does, hides the service's address from the mesh wherever it runs. That cannot be undone, only said.
//!
//! Ours are known by the maps that they use, for names prove nothing.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use abi::map;
use linux::bpf::{self, Hook, Target};

use crate::report::{Line, Part, Problem};

/// A program of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Other {
    /// Where it is attached.
    pub(crate) hook: &'static str,
    /// The kernel's number.
    pub(crate) id: u32,
    /// Its name, cut to 15 bytes.
    pub(crate) name: String,
}

/// What runs on a pod's namespace after our program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    Nothing,
    /// A program that may have another opinion.
    Other(Other),
    /// Another installation's program.
    Installation(u32),
}

/// What runs after our program `own` on a pod's namespace.
pub(crate) fn after(netns: &impl AsFd, own: u32) -> io::Result<After> {
    let programs = bpf::attached(netns, Hook::SkLookup)?;
    let later = programs.into_iter().skip_while(|id| *id != own).filter(|id| *id != own);
    for id in later {
        let Some(program) = look(id, Hook::SkLookup)? else { continue };
        return Ok(match program {
            Whose::Ours => After::Installation(id),
            Whose::Others(other) => After::Other(other),
        });
    }
    Ok(After::Nothing)
}

/// The program of another installation on a pod's namespace; `own` are this one's.
pub(crate) fn installation(netns: &impl AsFd, own: &BTreeSet<u32>) -> io::Result<Option<u32>> {
    for id in bpf::attached(netns, Hook::SkLookup)? {
        if !own.contains(&id) && matches!(look(id, Hook::SkLookup)?, Some(Whose::Ours)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Everybody else's programs for connect(2) and sendmsg(2): on the root cgroup by whatever means, on others by link.
pub(crate) fn on_cgroups(root: &impl AsFd) -> io::Result<BTreeSet<Other>> {
    let mut found = BTreeSet::new();
    let links = bpf::links()?;
    for hook in Hook::CGROUP {
        let linked =
            links.iter().filter(|link| matches!(link.target, Target::Cgroup(_)) && link.hook == hook as u32);
        let ids: BTreeSet<u32> =
            bpf::attached(root, hook)?.into_iter().chain(linked.map(|link| link.program)).collect();
        for id in ids {
            if let Some(Whose::Others(other)) = look(id, hook)? {
                found.insert(other);
            }
        }
    }
    Ok(found)
}

/// The line of an inspection about one of them.
pub(crate) fn line(other: &Other) -> Line {
    let Other { hook, id, name } = other;
    let what = format!(
        "a {hook} program of another software runs on this node; if it rewrites the addresses of services, the mesh does \
         not see which service was meant"
    );
    let remedy = "a socket load balancer must leave pods alone: with Cilium, socketLB.hostNamespaceOnly=true";
    Line::noted(Part::Others, format!("program {name} (id {id})"), Problem::new(what, remedy))
}

enum Whose {
    Ours,
    Others(Other),
}

/// Whose a program is; none if it has gone meanwhile.
fn look(id: u32, hook: Hook) -> io::Result<Option<Whose>> {
    let program = match bpf::program(id) {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let ours = match hook {
        Hook::SkLookup => map::LISTENERS,
        _ => map::ENROLLED,
    };
    for id in bpf::maps_of(&program)? {
        match bpf::map(id).and_then(|map| bpf::map_info(&map)) {
            Ok(info) if info.name == ours => return Ok(Some(Whose::Ours)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Whose::Others(Other { hook: hook.as_str(), id, name: bpf::name_of(&program)? })))
}
