//! A table whose keys are never used twice: index and generation. What comes late, for something that is gone, finds nobody.

/// `index | generation << 32`, with [`INDEX_BITS`] bits of index; the bits between are the caller's.
pub type Key = u64;

/// How many bits of a [`Key`] are an index.
pub const INDEX_BITS: u32 = 28;

const INDEX: u64 = (1 << INDEX_BITS) - 1;

/// See the module.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts something in.
    ///
    /// # Panics
    /// With 2²⁸ of them in it.
    pub fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            assert!(index as u64 <= INDEX, "fewer slots than descriptors that a machine can have");
            self.slots.push(Slot { generation: 0, value: None });
            index as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots.get_mut((key & INDEX) as usize).filter(|slot| u64::from(slot.generation) == key >> 32)
    }

    /// What has this key, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot(key)?.value.as_mut()
    }

    /// Takes it out. Its key will not come back.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot(key)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push((key & INDEX) as u32);
        Some(value)
    }

    /// All that are in it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = u64::from(slot.generation) << 32 | index as u64;
            slot.value.as_mut().map(|value| (key, value))
        })
    }

    /// Takes all out.
    pub fn drain(&mut self) -> impl Iterator<Item = (Key, T)> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().enumerate().filter_map(|(index, slot)| {
            let key = u64::from(slot.generation) << 32 | index as u64;
            slot.value.map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_outlives_what_it_names_and_finds_no_stranger() {
        let mut slots = Slots::new();
        let (a, b) = (slots.insert("a"), slots.insert("b"));
        assert_eq!(slots.remove(a), Some("a"));
        let c = slots.insert("c");
        assert_eq!(a & INDEX, c & INDEX, "the place is used again");
        assert_ne!(a, c);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get_mut(b).copied(), Some("b"));
        assert_eq!(slots.get_mut(c).copied(), Some("c"));
        assert_eq!(slots.iter_mut().map(|(key, _)| key).collect::<Vec<_>>(), [c, b]);
        assert_eq!(slots.drain().collect::<Vec<_>>(), [(c, "c"), (b, "b")]);
        assert_eq!(slots.get_mut(b), None);
    }
}
