//! A caller made of rsipstack: keeps a number of calls open for some seconds, each INVITE-ACK-BYE, and
//! says how many there were. One thread; UDP with a large receive buffer.
//!
//! ```text
//! uac TO IN_FLIGHT SECONDS
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rsipstack::EndpointBuilder;
use rsipstack::dialog::dialog_layer::DialogLayer;
use rsipstack::dialog::invitation::InviteOption;
use rsipstack::sip::{Header, StatusCode, Uri};
use rsipstack::transport::TransportLayer;
use rsipstack::transport::udp::UdpConnection;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SDP: &str = "v=0\r\no=- 3973000001 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.10:2855/0000000001abcdefghijklmnopqrstuv;tcp\r\n\
    a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\na=msrp-cema\r\n\
    a=sendonly\r\n";

const HEADERS: [(&str, &str); 9] = [
    (
        "Accept-Contact",
        "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"",
    ),
    ("P-Asserted-Identity", "<sip:cpm-pf@ims.example.net>"),
    (
        "P-Asserted-Service",
        "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred",
    ),
    (
        "P-Charging-Vector",
        "icid-value=\"0000000001abcdefghijklmnopqrstuv\";icid-generated-at=pf1.ims.example.net;\
         orig-ioi=\"ims.example.net\"",
    ),
    ("Supported", "timer"),
    ("Session-Expires", "1800;refresher=uac"),
    ("Conversation-ID", "4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc"),
    ("Contribution-ID", "94d850fb-ed40-437e-9609-de9ea0e393d9"),
    ("Allow", "INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS"),
];

#[derive(Default)]
struct Counts {
    invites: AtomicU64,
    accepted: AtomicU64,
    byes: AtomicU64,
    failed: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn socket() -> std::io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(16 << 20)?;
    socket.set_send_buffer_size(16 << 20)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok(socket.into())
}

async fn call(layer: &DialogLayer, option: &InviteOption, counts: &Counts) {
    add(&counts.invites);
    let (sender, _states) = layer.new_dialog_state_channel();
    match layer.do_invite(option.clone(), sender).await {
        Ok((dialog, Some(answer))) if answer.status_code == StatusCode::OK => {
            add(&counts.accepted);
            match dialog.bye().await {
                Ok(()) => add(&counts.byes),
                Err(_) => add(&counts.failed),
            }
            layer.remove_dialog(&dialog.id());
        }
        _ => add(&counts.failed),
    }
}

async fn run(to: SocketAddr, in_flight: u64, seconds: f64) -> rsipstack::Result<()> {
    let token = CancellationToken::new();
    let transport = TransportLayer::new(token.clone());
    let socket = tokio::net::UdpSocket::from_std(socket()?)?;
    let local = socket.local_addr()?;
    let connection = UdpConnection::from_socket(Arc::new(socket), None, Some(token.child_token()));
    transport.add_transport(connection.await?.into());
    let endpoint = EndpointBuilder::new()
        .with_cancel_token(token.clone())
        .with_transport_layer(transport)
        .with_user_agent("CPM-serv/OMA2.2 rsipstack/0.7.14")
        .build();
    let layer = Arc::new(DialogLayer::new(endpoint.inner.clone()));
    let uri = |text: String| Uri::try_from(text.as_str());
    let option = InviteOption {
        caller: uri("sip:cpm-pf@ims.example.net".into())?,
        callee: uri(format!("sip:+15550100@{to}"))?,
        contact: uri(format!("sip:push@{local}"))?,
        content_type: Some("application/sdp".into()),
        offer: Some(SDP.into()),
        headers: Some(
            HEADERS
                .iter()
                .map(|(name, value)| Header::Other((*name).into(), (*value).into()))
                .collect(),
        ),
        ..InviteOption::default()
    };
    let counts = Arc::new(Counts::default());
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let serving = tokio::spawn(async move { endpoint.serve().await });
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (layer, option, counts) = (layer.clone(), option.clone(), counts.clone());
            tokio::spawn(async move {
                while Instant::now() < until {
                    call(&layer, &option, &counts).await;
                }
            })
        })
        .collect();
    for caller in callers {
        let _ = caller.await;
    }
    token.cancel();
    let _ = serving.await;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{{\"invites\":{},\"accepted\":{},\"byes_answered\":{},\"strays\":{}}}",
        of(&counts.invites),
        of(&counts.accepted),
        of(&counts.byes),
        of(&counts.failed),
    );
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to, in_flight, seconds] = arguments.as_slice() else {
        eprintln!("usage: uac TO IN_FLIGHT SECONDS");
        std::process::exit(2);
    };
    let (Ok(to), Ok(in_flight), Ok(seconds)) = (to.parse(), in_flight.parse(), seconds.parse())
    else {
        eprintln!("usage: uac HOST:PORT NUMBER NUMBER");
        std::process::exit(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if let Err(error) = runtime.block_on(run(to, in_flight, seconds)) {
        eprintln!("uac: {error}");
        std::process::exit(1);
    }
}
