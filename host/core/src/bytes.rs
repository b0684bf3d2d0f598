//! Fixed-layout fields: little-endian integers out of and into byte slices, without a way to panic.

/// Reads fields one after the other. After a short read every field is zero and `ok()` is false.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    short: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, short: false }
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((field, rest)) => {
                self.rest = rest;
                field
            }
            None => {
                self.short = true;
                &[]
            }
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap_or([0; N])
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Everything was there, whether or not something is left.
    pub(crate) fn ok(&self) -> bool {
        !self.short
    }

    /// Everything was there and nothing is left.
    pub(crate) fn done(&self) -> bool {
        !self.short && self.rest.is_empty()
    }
}
