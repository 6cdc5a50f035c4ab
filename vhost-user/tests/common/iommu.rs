//! A frontend whose guest has an IOMMU: it tells translations when it is asked, page by page, and takes them back.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use linecard_vhost_user::BackendConfig;
use linecard_virtio::Features;
use linecard_wire::payload::{IotlbMessage, Payload};
use linecard_wire::{BackendReq, Connection, Error, FrontendReq as Req};

use super::{Frontend, Guest, RING_AREA, USER};

/// Where the guest's I/O virtual addresses begin.
pub const IOVA: u64 = 0xfff0_0000_0000;
pub const PAGE: u64 = 4096;

/// What descriptors call the memory at `offset`: neighbours among the pages of buffers are exchanged, so that an address taken
/// for what it is not leads to another buffer.
pub fn iova_of(offset: usize) -> u64 {
    let page = (offset / PAGE as usize) ^ usize::from(offset >= RING_AREA);
    IOVA + page as u64 * PAGE + offset as u64 % PAGE
}

/// A port that lets addresses be translated.
pub fn with_iommu(config: BackendConfig) -> BackendConfig {
    let features = config.features | Features::ACCESS_PLATFORM;
    config.features(features)
}

/// The IOMMU of one frontend.
pub struct Iommu {
    channel: Connection,
    /// Pages that were asked for, and what for.
    pub asked: Vec<(u64, u8)>,
}

pub fn update(iova: u64, size: u64, user_addr: u64, access: u8) -> Vec<u8> {
    IotlbMessage { iova, size, user_addr, access, kind: IotlbMessage::UPDATE }.to_bytes()
}

pub fn invalidate(iova: u64, size: u64) -> Vec<u8> {
    IotlbMessage { iova, size, user_addr: 0, access: 0, kind: IotlbMessage::INVALIDATE }.to_bytes()
}

impl Iommu {
    /// Gives the backend of a frontend that has negotiated something to ask on.
    pub fn of(frontend: &mut Frontend) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        frontend.good(Req::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
        Self { channel: Connection::new(ours).expect("a connection"), asked: Vec::new() }
    }

    /// The next question, if there is one.
    pub fn question(&mut self) -> Option<IotlbMessage> {
        let message = match self.channel.read() {
            Ok(message) => message?,
            Err(Error::Closed) => panic!("the backend has closed the channel"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(message.request, BackendReq::IOTLB_MSG as u32);
        let miss = IotlbMessage::from_bytes(&message.payload).expect("a question");
        assert_eq!(miss.kind, IotlbMessage::MISS);
        assert!(miss.iova.is_multiple_of(PAGE), "{miss:?}");
        self.asked.push((miss.iova, miss.access));
        Some(miss)
    }

    /// Answers what was asked; how often.
    pub fn serve(&mut self, frontend: &mut Frontend) -> usize {
        let mut answered = 0;
        while let Some(miss) = self.question() {
            tell(frontend, miss.iova, IotlbMessage::READ | IotlbMessage::WRITE);
            answered += 1;
        }
        answered
    }
}

/// Where the page of that address is in the frontend.
pub fn user_of(page: u64) -> u64 {
    let offset = (page - IOVA) as usize;
    let swapped = (offset / PAGE as usize) ^ usize::from(offset >= RING_AREA);
    USER + swapped as u64 * PAGE
}

/// Tells the translation of a page.
pub fn tell(frontend: &mut Frontend, page: u64, access: u8) {
    frontend.good(Req::IOTLB_MSG, &update(page, PAGE, user_of(page), access), &[]);
}

/// A guest with an IOMMU, and rings that wait for their translation.
pub fn start(frontend: Frontend, features: Features) -> (Guest, Iommu) {
    let mut frontend = frontend;
    frontend.negotiate(features | Features::ACCESS_PLATFORM);
    frontend.translated = true;
    let iommu = Iommu::of(&mut frontend);
    (Guest::with_rings(frontend), iommu)
}
