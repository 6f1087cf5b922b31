//! Reads protobuf fields without decoding them: number, value, and the bytes of the whole field.

use super::frame::WireError;
use bytes::Bytes;

/// A field as it is in a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) value: Value,
    /// The field with its tag.
    pub(super) raw: Bytes,
}

/// A field's value. Slices of the message, not copies.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Bytes),
    Fixed,
}

impl Field {
    pub(super) fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(WireError::Malformed("a field of another type")),
        }
    }

    pub(super) fn u32(&self) -> Result<u32, WireError> {
        // As protobuf decodes a wider varint: its low 32 bits. Two readings of one frame must not differ.
        u32::try_from(self.varint()?).map_err(|_| WireError::Malformed("a number over 32 bits"))
    }

    pub(super) fn bytes(&self) -> Result<Bytes, WireError> {
        match &self.value {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(WireError::Malformed("a field of another type")),
        }
    }

    pub(super) fn text(&self) -> Result<Bytes, WireError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map_err(|_| WireError::Malformed("text that is not UTF-8"))?;
        Ok(bytes)
    }
}

/// The fields of a message, one after another.
pub(super) fn fields(message: &Bytes) -> Fields<'_> {
    Fields { message, at: 0 }
}

pub(super) struct Fields<'a> {
    message: &'a Bytes,
    at: usize,
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

impl Fields<'_> {
    fn read(&mut self) -> Result<Field, WireError> {
        let start = self.at;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(WireError::Malformed("a field number out of range"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::CutShort)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(WireError::Malformed("a wire type that is not in use")),
        };
        Ok(Field {
            number,
            value,
            raw: self.message.slice(start..self.at),
        })
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(WireError::CutShort)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(WireError::Malformed("a varint over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed("a varint over 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<Bytes, WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::CutShort)?;
        if end > self.message.len() {
            return Err(WireError::CutShort);
        }
        let bytes = self.message.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }
}

/// Remembers which fields of a message came, so that one that must occur once is refused the second time: protobuf would
/// merge or overwrite, and a receiver might read another message than the bridge.
#[derive(Default)]
pub(super) struct Once(u64);

impl Once {
    pub(super) const fn note(&mut self, number: u32) -> Result<(), WireError> {
        if number < 64 {
            let bit = 1 << number;
            if self.0 & bit != 0 {
                return Err(WireError::Malformed("a field that occurs twice"));
            }
            self.0 |= bit;
        }
        Ok(())
    }
}
