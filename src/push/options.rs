//! How pushes behave. Defaults are REQUIREMENTS section 16.

use core::time::Duration;

use crate::push::dialect::DialectOptions;
use crate::registry::features::AgentPatterns;
use crate::sip::session_timer::SessionTimerOptions;
use crate::sip::transaction::TransactionOptions;

/// What is sent to a device in one session (AMB-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// The queued messages of one conversation, then the next.
    Conversation,
    /// Every queued message of the user.
    #[default]
    User,
    /// One message per session.
    Message,
}

/// Options of pushes and their sessions.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Timers over an unreliable transport.
    pub transaction: TransactionOptions,
    /// Longest wait for a final response after a provisional one.
    pub t_answer: Duration,
    /// Session timer policy (PUSH-f, ST-3).
    pub timer: SessionTimerOptions,
    /// Longest wait for the peer's connection (MSRP-20).
    pub await_connection: Duration,
    /// Longest wait for our own connection (MSRP-20).
    pub connect: Duration,
    /// How long a session stays after the queue drained (DLV-5).
    pub linger: Duration,
    /// Longest session (DLV-6).
    pub max_session: Duration,
    /// Most messages of a session (DLV-6).
    pub max_messages: u32,
    /// Whether addresses in answers are checked (SDP-21).
    pub media_guard: bool,
    /// Whether sessions to one address share a connection (MSRP-18).
    pub msrp_reuse: bool,
    /// Grouping of messages into sessions.
    pub grouping: Grouping,
    /// Handset dialects; the first is that of every device without another. Empty: the profile as it is.
    pub dialects: Vec<DialectOptions>,
    /// User-Agents that tell dialects apart.
    pub agents: AgentPatterns,
    /// There are such: User-Agents of answers are looked at.
    pub reads_agents: bool,
    /// Options of the MSRP machine.
    pub session: crate::msrp::session::SessionOptions,
    /// Octets waiting for an MSRP connection above which a session holds back.
    pub msrp_backlog_bytes_max: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            transaction: TransactionOptions::default(),
            t_answer: Duration::from_secs(60),
            timer: SessionTimerOptions::default(),
            await_connection: Duration::from_secs(15),
            connect: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            max_session: Duration::from_secs(300),
            max_messages: 1000,
            media_guard: true,
            msrp_reuse: false,
            grouping: Grouping::User,
            dialects: Vec::new(),
            agents: AgentPatterns::default(),
            reads_agents: false,
            session: crate::msrp::session::SessionOptions::default(),
            msrp_backlog_bytes_max: 256 * 1024,
        }
    }
}
