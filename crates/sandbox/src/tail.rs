//! The end of a stream.

/// Keeps the last bytes of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let chunk = &chunk[chunk.len().saturating_sub(self.limit)..];
        // Cut once in as many bytes as are kept, so that each byte moves once.
        if self.bytes.len() + chunk.len() > 2 * self.limit {
            self.cut();
        }
        self.bytes.extend_from_slice(chunk);
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.cut();
        self.bytes
    }

    fn cut(&mut self) {
        self.bytes.drain(..self.bytes.len().saturating_sub(self.limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_however_they_come() {
        let text: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for size in [1, 7, 63, 64, 65, 128, 129, 10_000] {
            let mut tail = Tail::new(64);
            for chunk in text.chunks(size) {
                tail.push(chunk);
                assert!(tail.bytes.len() <= 2 * 64);
            }
            assert_eq!(tail.into_bytes(), &text[text.len() - 64..], "in chunks of {size}");
        }
        let mut short = Tail::new(64);
        short.push(b"abc");
        assert_eq!(short.into_bytes(), b"abc");
    }
}
