//! Reading fixed fields from bytes.

/// A position in borrowed bytes. Every read either yields all of its bytes or `None`.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next four bytes, little-endian.
    #[inline]
    pub fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next four bytes in this machine's order.
    #[inline]
    pub fn u32_ne(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The next four bytes in this machine's order, signed.
    #[inline]
    pub fn i32_ne(&mut self) -> Option<i32> {
        self.array().map(i32::from_ne_bytes)
    }

    /// The next eight bytes in this machine's order.
    #[inline]
    pub fn u64_ne(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// `value`, if every byte was read: trailing bytes fail.
    #[inline]
    pub fn finish<T>(self, value: T) -> Option<T> {
        self.rest.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_whole_or_none_and_trailing_bytes_fail() {
        let mut cursor = Cursor::new(&[1, 2, 3, 4, 5]);
        assert_eq!(cursor.u8(), Some(1));
        assert_eq!(cursor.take(5), None);
        assert_eq!(cursor.u32_le(), Some(0x0504_0302));
        assert_eq!(
            (cursor.u8(), cursor.u64_ne(), cursor.i32_ne(), cursor.u32_ne()),
            (None, None, None, None)
        );
        assert_eq!(cursor.finish(()), Some(()));
        assert_eq!(Cursor::new(&[0]).finish(()), None);
        assert_eq!(Cursor::new(&[0]).rest(), [0]);
    }

    #[test]
    fn native_order() {
        assert_eq!(Cursor::new(&(-5_i32).to_ne_bytes()).i32_ne(), Some(-5));
        assert_eq!(Cursor::new(&7_u64.to_ne_bytes()).u64_ne(), Some(7));
        assert_eq!(Cursor::new(&9_u32.to_ne_bytes()).u32_ne(), Some(9));
    }
}
