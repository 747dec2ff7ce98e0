//! Registration knowledge as the notifier tells it (RFC 3680, RFC 5628).
//!
//! Layer 1: [`scan`] splits a document into tags, bounded and without DTDs; [`document`] reads the
//! rows a push needs, [`familiar`] those of documents like one read before. Layer 2: [`subscription`] is the subscriber's state machine. Merging rows into
//! what is known of a user is `registry`'s work, because the merge decides about devices.
//!
//! Not here: building SUBSCRIBE requests, answering NOTIFY, the dialog of the subscription.

pub mod document;
pub mod familiar;
pub mod scan;
pub mod subscription;
