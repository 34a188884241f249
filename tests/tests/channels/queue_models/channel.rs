//! A channel, whose handles may be closed, and its model.

use super::{Checked, Operations, Step};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use trefoil_nursery::{ChannelStatistics, Receiver, SendError, Sender, TryRecvError, TrySendError, channel};

/// What an operation on the channel has come to, whether or not it has looked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stand {
    Sends(u32),
    Taken,
    Broken(u32),
    HandleClosed(u32),
    SendAborted(u32),
    Receives,
    Got(usize, u32),
    End,
    ReceiveAborted,
}

#[derive(Debug)]
enum Result2 {
    Sent(Result<(), SendError<u32>>),
    Received(Option<u32>),
}

struct ChannelModel {
    capacity: usize,
    buffer: VecDeque<u32>,
    /// Those that were handed to receivers and came back, by number.
    returned: BTreeMap<usize, u32>,
    handed: usize,
    senders: [bool; 2],
    receivers: [bool; 2],
    /// `(id, handle, stand)`, in order.
    all: Vec<(usize, usize, Stand)>,
    lost: Vec<u32>,
}

impl ChannelModel {
    fn open(side: [bool; 2]) -> usize {
        side.iter().filter(|&&open| open).count()
    }

    fn first(&mut self, of: fn(&Stand) -> bool) -> Option<&mut (usize, usize, Stand)> {
        self.all.iter_mut().find(|one| of(&one.2))
    }

    fn buffered(&self) -> usize {
        self.buffer.len() + self.returned.len()
    }

    /// To the oldest receiver that waits.
    fn hand(&mut self, number: usize, item: u32) -> bool {
        let receiver = self.first(|s| *s == Stand::Receives);
        let found = receiver.is_some();
        if let Some(receiver) = receiver {
            receiver.2 = Stand::Got(number, item);
        }
        found
    }

    fn next_of_sender(&mut self) -> Option<u32> {
        let sender = self.first(|s| matches!(s, Stand::Sends(_)))?;
        let Stand::Sends(item) = std::mem::replace(&mut sender.2, Stand::Taken) else { unreachable!() };
        Some(item)
    }

    fn offer(&mut self, handle: usize, item: u32) -> Result<(), TrySendError<u32>> {
        if !self.senders[handle] {
            return Err(TrySendError::HandleClosed(item));
        }
        if Self::open(self.receivers) == 0 {
            return Err(TrySendError::Closed(item));
        }
        self.handed += 1;
        if self.hand(self.handed, item) {
            return Ok(());
        }
        if self.buffered() < self.capacity && self.first(|s| matches!(s, Stand::Sends(_))).is_none() {
            self.buffer.push_back(item);
            return Ok(());
        }
        Err(TrySendError::Full(item))
    }

    fn take(&mut self, handle: usize) -> Result<u32, TryRecvError> {
        if !self.receivers[handle] {
            return Err(TryRecvError::HandleClosed);
        }
        let item = match self.returned.pop_first() {
            Some((_, item)) => Some(item),
            None => self.buffer.pop_front(),
        };
        if let Some(item) = item {
            while self.buffered() < self.capacity {
                match self.next_of_sender() {
                    Some(item) => self.buffer.push_back(item),
                    None => break,
                }
            }
            return Ok(item);
        }
        match self.next_of_sender() {
            Some(item) => Ok(item),
            None if Self::open(self.senders) == 0 => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }

    fn close_sender(&mut self, handle: usize) {
        if !std::mem::take(&mut self.senders[handle]) {
            return;
        }
        let last = Self::open(self.senders) == 0;
        for (_, via, stand) in &mut self.all {
            match *stand {
                Stand::Sends(item) if *via == handle => *stand = Stand::HandleClosed(item),
                Stand::Receives if last => *stand = Stand::End,
                _ => {}
            }
        }
    }

    fn close_receiver(&mut self, handle: usize) {
        if !std::mem::take(&mut self.receivers[handle]) {
            return;
        }
        let last = Self::open(self.receivers) == 0;
        for (_, via, stand) in &mut self.all {
            match *stand {
                Stand::Receives if *via == handle => *stand = Stand::End,
                Stand::Sends(item) if last => *stand = Stand::Broken(item),
                _ => {}
            }
        }
        if last {
            self.lost.extend(std::mem::take(&mut self.returned).into_values());
            self.lost.extend(self.buffer.drain(..));
        }
    }

    fn statistics(&self) -> ChannelStatistics {
        let count = |of: fn(&Stand) -> bool| self.all.iter().filter(|one| of(&one.2)).count();
        ChannelStatistics {
            buffered: self.buffered(),
            capacity: self.capacity,
            senders: Self::open(self.senders),
            receivers: Self::open(self.receivers),
            waiting_to_send: count(|s| matches!(s, Stand::Sends(_))),
            waiting_to_receive: count(|s| *s == Stand::Receives),
        }
    }
}

pub async fn memory_channel(capacity: usize, steps: &[Step], close: bool) -> Checked {
    let (tx, rx): (Sender<u32>, Receiver<u32>) = channel(capacity);
    let (txs, rxs) = ([tx.clone(), tx], [rx.clone(), rx]);
    let mut model = ChannelModel {
        capacity,
        buffer: VecDeque::new(),
        returned: BTreeMap::new(),
        handed: 0,
        senders: [true; 2],
        receivers: [true; 2],
        all: Vec::new(),
        lost: Vec::new(),
    };
    let mut operations = Operations::new();
    // Every item is in one of these at the end.
    let (mut item, mut received, mut back) = (0, Vec::new(), Vec::new());
    for &(what, a, b) in steps {
        let handle = usize::from(b % 2);
        match what {
            0..22 => {
                item += 1;
                let expected = model.offer(handle, item);
                let tx = &txs[handle];
                let (id, out) = operations.begin(async move { Ok(Result2::Sent(tx.send(item).await)) }).await;
                match (expected, out) {
                    (Ok(()), Some(Some(Result2::Sent(Ok(()))))) => {}
                    (Err(TrySendError::Closed(i)), Some(Some(Result2::Sent(Err(SendError::Closed(j))))))
                    | (
                        Err(TrySendError::HandleClosed(i)),
                        Some(Some(Result2::Sent(Err(SendError::HandleClosed(j))))),
                    ) => {
                        prop_assert_eq!(i, j);
                        back.push(j);
                    }
                    (Err(TrySendError::Full(item)), None) => model.all.push((id, handle, Stand::Sends(item))),
                    other => prop_assert!(false, "send: {:?}", other),
                }
            }
            22..44 => {
                let expected = model.take(handle);
                let rx = &rxs[handle];
                let (id, out) = operations.begin(async move { Ok(Result2::Received(rx.recv().await?)) }).await;
                match (expected, out) {
                    (Ok(i), Some(Some(Result2::Received(Some(j))))) => {
                        prop_assert_eq!(i, j);
                        received.push(j);
                    }
                    (Err(TryRecvError::Closed | TryRecvError::HandleClosed), Some(Some(Result2::Received(None)))) => {}
                    (Err(TryRecvError::Empty), None) => model.all.push((id, handle, Stand::Receives)),
                    other => prop_assert!(false, "recv: {:?}", other),
                }
            }
            44..50 => {
                item += 1;
                let out = txs[handle].try_send(item);
                prop_assert_eq!(out, model.offer(handle, item));
                back.extend(out.err().map(TrySendError::into_inner));
            }
            50..56 => {
                let out = rxs[handle].try_recv();
                prop_assert_eq!(out, model.take(handle));
                received.extend(out);
            }
            56..78 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                let out = operations.poll(at).await;
                let place = model.all.iter().position(|one| one.0 == id).expect("it is there");
                let stand = model.all[place].2;
                if out.is_some() {
                    model.all.remove(place);
                }
                match (stand, out) {
                    (Stand::Sends(_) | Stand::Receives, None)
                    | (Stand::Taken, Some(Some(Result2::Sent(Ok(())))))
                    | (Stand::End, Some(Some(Result2::Received(None))))
                    | (Stand::ReceiveAborted, Some(None)) => {}
                    (Stand::Broken(i), Some(Some(Result2::Sent(Err(SendError::Closed(j))))))
                    | (Stand::HandleClosed(i), Some(Some(Result2::Sent(Err(SendError::HandleClosed(j))))))
                    | (Stand::SendAborted(i), Some(Some(Result2::Sent(Err(SendError::Cancelled(_, j)))))) => {
                        prop_assert_eq!(i, j);
                        back.push(j);
                    }
                    (Stand::Got(_, i), Some(Some(Result2::Received(Some(j))))) => {
                        prop_assert_eq!(i, j);
                        received.push(j);
                    }
                    other => prop_assert!(false, "poll: {:?}", other),
                }
            }
            78..86 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                operations.all[at].scope.cancel();
                let one = model.all.iter_mut().find(|one| one.0 == id).expect("it is there");
                match one.2 {
                    Stand::Sends(item) => one.2 = Stand::SendAborted(item),
                    Stand::Receives => one.2 = Stand::ReceiveAborted,
                    _ => {}
                }
            }
            86..94 => {
                let Some((at, id)) = operations.pick(a) else { continue };
                drop(operations.all.remove(at));
                let place = model.all.iter().position(|one| one.0 == id).expect("it is there");
                match model.all.remove(place).2 {
                    // With the future goes what it did not send.
                    Stand::Sends(item) | Stand::Broken(item) | Stand::HandleClosed(item) | Stand::SendAborted(item) => {
                        model.lost.push(item);
                    }
                    // N5.
                    Stand::Got(number, item) if !model.hand(number, item) => {
                        if ChannelModel::open(model.receivers) == 0 {
                            model.lost.push(item);
                        } else {
                            model.returned.insert(number, item);
                        }
                    }
                    _ => {}
                }
            }
            94..97 if close => {
                txs[handle].close();
                model.close_sender(handle);
            }
            97.. if close => {
                rxs[handle].close();
                model.close_receiver(handle);
            }
            _ => {}
        }
        prop_assert_eq!(txs[0].statistics(), model.statistics());
        prop_assert_eq!((txs[0].len(), rxs[1].len()), (model.buffered(), model.buffered()));
        prop_assert_eq!(rxs[handle].is_closed(), !model.receivers[handle]);
    }
    // What receivers have that have not looked goes back, in order, and comes out before what is behind it.
    for one in std::mem::take(&mut model.all) {
        match one.2 {
            Stand::Sends(item) | Stand::Broken(item) | Stand::HandleClosed(item) | Stand::SendAborted(item) => {
                model.lost.push(item);
            }
            Stand::Got(number, item) if ChannelModel::open(model.receivers) > 0 => {
                model.returned.insert(number, item);
            }
            Stand::Got(_, item) => model.lost.push(item),
            _ => {}
        }
    }
    drop(operations);
    let left: Vec<u32> = model.returned.values().chain(&model.buffer).copied().collect();
    let mut drained = Vec::new();
    for rx in rxs.iter().filter(|rx| !rx.is_closed()) {
        drained.extend(std::iter::from_fn(|| rx.try_recv().ok()));
    }
    prop_assert_eq!(&drained, &left);
    let mut all: Vec<u32> = [received, back, drained, model.lost].concat();
    all.sort();
    prop_assert_eq!(all, (1..=item).collect::<Vec<_>>(), "every item is in one place");
    Ok(())
}
