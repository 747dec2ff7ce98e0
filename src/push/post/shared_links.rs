//! MSRP connections that sessions share.

use core::net::SocketAddr;

use crate::base::map::{Map, MapKeys, new_map};
use crate::base::slab::Key;
use crate::base::surface::LinkId;

#[derive(Debug)]
enum Shared {
    Connecting(Vec<Key>),
    Open(LinkId),
}

/// Connections to MSRP addresses that several sessions use (MSRP-18), by address.
#[derive(Debug)]
pub struct SharedLinks {
    links: Map<SocketAddr, Shared>,
}

impl SharedLinks {
    pub(super) fn new(keys: MapKeys) -> Self {
        Self {
            links: new_map(keys, 16),
        }
    }

    /// The open connection to `address`.
    #[must_use]
    pub fn open(&self, address: SocketAddr) -> Option<LinkId> {
        match self.links.get(&address) {
            Some(Shared::Open(link)) => Some(*link),
            Some(Shared::Connecting(_)) | None => None,
        }
    }

    /// Lets `push` wait for a connection to `address`; true if the caller must make it.
    pub fn wait(&mut self, address: SocketAddr, push: Key) -> bool {
        match self.links.get_mut(&address) {
            Some(Shared::Connecting(waiting)) => {
                waiting.push(push);
                false
            }
            Some(Shared::Open(_)) | None => {
                self.links.insert(address, Shared::Connecting(vec![push]));
                true
            }
        }
    }

    /// The connection to `address` is up; gives the pushes that waited.
    pub fn connected(&mut self, address: SocketAddr, link: LinkId) -> Vec<Key> {
        match self.links.insert(address, Shared::Open(link)) {
            Some(Shared::Connecting(waiting)) => waiting,
            Some(Shared::Open(_)) | None => Vec::new(),
        }
    }

    /// The connection that `push` asked for failed; gives every push that waited for it.
    pub fn failed(&mut self, push: Key) -> Vec<Key> {
        let address = self
            .links
            .iter()
            .find_map(|(address, shared)| match shared {
                Shared::Connecting(waiting) if waiting.first() == Some(&push) => Some(*address),
                Shared::Connecting(_) | Shared::Open(_) => None,
            });
        match address.and_then(|address| self.links.remove(&address)) {
            Some(Shared::Connecting(waiting)) => waiting,
            Some(Shared::Open(_)) | None => Vec::new(),
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, address: SocketAddr, link: LinkId) {
        if self.open(address) == Some(link) {
            self.links.remove(&address);
        }
    }
}
