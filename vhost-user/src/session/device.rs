//! Requests about the whole device: features, status, configuration, reset.

use linecard_virtio::Features;
use linecard_wire::payload::{Config, Payload};
use linecard_wire::{Message, ProtocolFeatures};

use super::request::Answer;
use super::{Session, Slots};
use crate::error::Refusal;

/// Bit of `status`: the driver is ready to drive the device (virtio 1.3, Device Status Field).
const DRIVER_OK: u8 = 4;
/// Bit of `status` in `virtio_net_config`: the link is up.
const LINK_UP: u16 = 1;
/// The smallest MTU that IPv4 allows.
const MIN_MTU: u16 = 68;

impl Session {
    pub(super) fn set_owner(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        <()>::from_bytes(&message.payload)?;
        Ok(Answer::None)
    }

    pub(super) fn get_features(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        number(&message, self.terms.features.bits())
    }

    pub(super) fn get_protocol_features(
        &mut self,
        message: Message,
        _: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        number(&message, self.terms.protocol.bits())
    }

    /// Answers with the number of queue pairs, as DPDK and QEMU do, although the specification says rings.
    pub(super) fn get_queue_num(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        number(&message, u64::from(self.terms.queue_pairs))
    }

    pub(super) fn get_status(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        number(&message, u64::from(self.status.unwrap_or(0)))
    }

    pub(super) fn set_features(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let asked = Features::from_bits_retain(u64::from_bytes(&message.payload)?);
        let not_offered = asked - self.terms.features;
        if !not_offered.is_empty() {
            return Err(Refusal::Features { not_offered });
        }
        // Logging may be switched on and off while packets flow.
        let without = |features: Features| features.difference(Features::LOG_ALL);
        let rings = 0..self.vrings.len();
        if self.features.map(without) != Some(without(asked)) {
            self.make_idle(rings, "features", slots)?;
            self.features = Some(asked);
            self.use_translations(asked);
        } else if self.features != Some(asked) {
            self.features = Some(asked);
            self.rebuild(rings, slots);
        }
        Ok(Answer::None)
    }

    pub(super) fn set_protocol_features(
        &mut self,
        message: Message,
        _: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let asked = u64::from_bytes(&message.payload)?;
        let not_offered = asked & !self.terms.protocol.bits();
        if not_offered != 0 {
            return Err(Refusal::ProtocolFeatures { not_offered });
        }
        self.protocol = ProtocolFeatures::from_bits_retain(asked);
        Ok(Answer::None)
    }

    pub(super) fn set_status(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let asked = u64::from_bytes(&message.payload)?;
        let status =
            u8::try_from(asked).map_err(|_| Refusal::Value { what: "status", got: asked, max: 0xff })?;
        self.status = Some(status);
        if status == 0 {
            // A device reset stops the rings. Their configuration is kept.
            (0..self.vrings.len()).for_each(|index| self.stop(index, slots));
        }
        self.apply_modes(slots);
        Ok(Answer::None)
    }

    /// Whether the driver is ready. True if the frontend reports no status.
    pub(super) fn driver_ok(&self) -> bool {
        self.status.is_none_or(|status| status & DRIVER_OK != 0)
    }

    /// Stops and disables all rings. Memory, owner and negotiated features are kept, as in libvhost-user;
    /// frontends that add memory region by region rely on that.
    pub(super) fn reset_owner(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        <()>::from_bytes(&message.payload)?;
        for index in 0..self.vrings.len() {
            self.stop(index, slots);
            if let Some(vring) = self.vrings.get_mut(index) {
                vring.reset();
            }
        }
        Ok(Answer::None)
    }

    /// As [`reset_owner`](Self::reset_owner), and also resets the device to its state before feature
    /// negotiation.
    pub(super) fn reset_device(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let answer = self.reset_owner(message, slots)?;
        self.status = None;
        self.features = None;
        (self.log, self.log_event, self.inflight, self.translations) = (None, None, None, None);
        Ok(answer)
    }

    pub(super) fn set_mtu(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let asked = u64::from_bytes(&message.payload)?;
        let (min, max) = (MIN_MTU.into(), u16::MAX.into());
        let mtu = u16::try_from(asked).ok().filter(|mtu| *mtu >= MIN_MTU);
        self.peer.set_mtu(mtu.ok_or(Refusal::Range { what: "MTU", got: asked, min, max })?);
        Ok(Answer::None)
    }

    /// Makes the first receive queue announce the MAC address, as if the peer had sent the frame.
    pub(super) fn send_rarp(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let word = u64::from_bytes(&message.payload)?.to_ne_bytes();
        let [a, b, c, d, e, f, ..] = word;
        const FIRST_RECEIVE_RING: usize = 1;
        if let Some(slot) = slots.get(FIRST_RECEIVE_RING) {
            slot.announce = Some([a, b, c, d, e, f]);
        }
        Ok(Answer::None)
    }

    pub(super) fn get_config(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let asked = Config::from_bytes(&message.payload)?;
        let space = self.config_space();
        let (start, len) = (asked.offset as usize, asked.data.len());
        let data = start.checked_add(len).and_then(|end| space.get(start..end)).ok_or(Refusal::Value {
            what: "end of configuration",
            got: u64::from(asked.offset) + len as u64,
            max: space.len() as u64,
        })?;
        Ok(Answer::payload(&Config { data: data.to_vec(), ..asked }))
    }

    /// The bytes of `struct virtio_net_config` up to `mtu`, then zeros (virtio 1.3, Network Device: Device
    /// Configuration Layout).
    fn config_space(&self) -> [u8; 256] {
        let mut space = [0; 256];
        let words = [LINK_UP, self.terms.queue_pairs, self.peer.mtu().unwrap_or(self.terms.mtu)];
        let bytes = self.terms.mac.into_iter().chain(words.into_iter().flat_map(u16::to_le_bytes));
        for (to, from) in space.iter_mut().zip(bytes) {
            *to = from;
        }
        space
    }

    /// Refuses every write: the configuration space is read-only.
    pub(super) fn set_config(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        Config::from_bytes(&message.payload)?;
        Err(Refusal::Unsupported { request: message.request })
    }
}

/// Answers a request without a payload with `value`.
fn number(message: &Message, value: u64) -> Result<Answer, Refusal> {
    <()>::from_bytes(&message.payload)?;
    Ok(Answer::payload(&value))
}
