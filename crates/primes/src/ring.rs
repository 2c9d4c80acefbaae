//! Lists for the segments ahead, made of blocks that are used again.

/// Items in a block: long enough for the hardware to prefetch it, short against the number of primes.
const BLOCK: usize = 16_384;

type Block<T> = Box<[T; BLOCK]>;

/// One list for the present segment and for each of those ahead.
#[derive(Debug, Default)]
pub(crate) struct Ring<T> {
    last: Vec<Last<T>>,
    full: Vec<Vec<Block<T>>>,
    spare: Vec<Block<T>>,
    present: usize,
}

/// The block of a list that is not full. Apart from the full ones, so that a push finds it by a shift.
#[derive(Debug)]
struct Last<T> {
    items: Block<T>,
    len: usize,
}

/// A list that was taken out of its ring.
#[derive(Debug)]
pub(crate) struct List<T> {
    full: Vec<Block<T>>,
    last: Last<T>,
}

impl<T: Copy + Default> Ring<T> {
    /// Empties all lists and sees to it that there are at least `segments`.
    pub(crate) fn reset(&mut self, segments: usize) {
        for (full, last) in self.full.iter_mut().zip(&mut self.last) {
            self.spare.append(full);
            last.len = 0;
        }
        let lists = segments.next_power_of_two().max(self.last.len());
        self.full.resize_with(lists, Vec::new);
        while self.last.len() < lists {
            let items = self.block();
            self.last.push(Last { items, len: 0 });
        }
    }

    /// Adds an item to the list of the segment that is `ahead` of the present one.
    #[inline]
    pub(crate) fn push(&mut self, ahead: usize, item: T) {
        let slot = (self.present + ahead) & (self.last.len() - 1);
        let last = &mut self.last[slot];
        last.items[last.len % BLOCK] = item;
        last.len += 1;
        if last.len == BLOCK {
            self.start_block(slot);
        }
    }

    #[cold]
    fn start_block(&mut self, slot: usize) {
        let empty = Last { items: self.block(), len: 0 };
        let last = std::mem::replace(&mut self.last[slot], empty);
        self.full[slot].push(last.items);
    }

    /// Takes the list of the present segment out.
    pub(crate) fn take(&mut self) -> List<T> {
        let slot = self.present & (self.last.len() - 1);
        let empty = Last { items: self.block(), len: 0 };
        List { full: std::mem::take(&mut self.full[slot]), last: std::mem::replace(&mut self.last[slot], empty) }
    }

    /// Gives the blocks of a list back for later ones.
    pub(crate) fn recycle(&mut self, mut list: List<T>) {
        self.spare.append(&mut list.full);
        self.spare.push(list.last.items);
    }

    /// Makes the next segment the present one.
    pub(crate) fn advance(&mut self) {
        self.present += 1;
    }

    fn block(&mut self) -> Block<T> {
        self.spare.pop().unwrap_or_else(|| {
            let block = vec![T::default(); BLOCK].try_into();
            block.unwrap_or_else(|_| unreachable!("the vector has the block's length"))
        })
    }
}

impl<T> List<T> {
    /// The items, block by block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &[T]> {
        let full = self.full.iter().map(|block| &block[..]);
        full.chain(std::iter::once(&self.last.items[..self.last.len]))
    }
}
