//! Any virtio header before any frame: its requests are within the frame, segments have the length of the
//! whole in total, and checksums are completed in place; never a panic.

use linecard_net::gso::Segmenter;
use linecard_net::offload;
use linecard_net::vnet::NetHeader;

/// The input of one run.
pub type Input<'a> = ([u8; 12], u16, &'a [u8]);

/// Executes one run.
pub fn run(input: Input<'_>) {
    let (header, size, frame) = input;
    let header = NetHeader::from_bytes(header);
    assert_eq!(NetHeader::from_bytes(header.to_bytes()), header);
    let layers = linecard_net::parse(frame);
    let mut bytes = frame.to_vec();
    if let Some(request) = header.request(frame.len()) {
        if let Some(partial) = request.partial {
            assert!(partial.field().end <= frame.len());
            let _ = offload::finish(&mut bytes, partial);
        }
        let back = NetHeader::asking(request).request(frame.len()).expect("what is asked is possible");
        assert_eq!((back.partial, back.gso), (request.partial, request.gso));
    }
    let _ = (offload::verify_ipv4(frame, &layers), offload::verify_transport(frame, &layers));
    let _ = offload::fill_ipv4(&mut bytes, &layers);
    let _ = offload::fill_transport(&mut bytes, &layers);
    let _ = offload::prepare(&mut bytes, &layers);
    let payload = frame.len().saturating_sub(layers.payload_start());
    let Some(segmenter) = Segmenter::new(&layers, payload, size) else { return };
    let mut total = 0;
    let mut out = vec![0; segmenter.header_len() + usize::from(size)];
    for index in 0..segmenter.segments().min(64) {
        let Some(len) = segmenter.segment(frame, index, &mut out) else { return };
        total += len - segmenter.header_len();
        assert!(len <= out.len());
    }
    if segmenter.segments() <= 64 {
        assert_eq!(total, payload);
    }
}
