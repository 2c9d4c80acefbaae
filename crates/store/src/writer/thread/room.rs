//! Room for new jobs and programs, which the store keeps free for changes of existing ones.

use super::{FIRST_PAUSE, WriterThread};
use crate::batch::Entry;
use crate::error::WriteError;
use crate::queue::Group;

impl WriterThread {
    /// Answers the callers that bring something new where there is no room for it.
    pub(super) fn refuse_without_room(&mut self, group: &mut Group) {
        if !group.entries.iter().any(Entry::is_new) {
            return;
        }
        let room = self.look_for_room();
        if room.is_ok() && self.backend.has_room(group.entries.iter().map(Entry::added_bytes).sum()).is_ok() {
            return;
        }
        // A large job does not keep out the small ones that come with it.
        let mut bytes = 0;
        for (entry, ticket) in group.entries.iter_mut().zip(&mut group.tickets).filter(|(entry, _)| entry.is_new()) {
            let bytes_with_it = bytes + entry.added_bytes();
            let Err(error) = room.clone().and_then(|()| self.backend.has_room(bytes_with_it)) else {
                bytes = bytes_with_it;
                continue;
            };
            if ticket.refuse(&error) {
                *entry = Entry::Nothing;
            }
        }
    }

    pub(super) fn look_for_room(&mut self) -> Result<(), WriteError> {
        let room = self.backend.has_room(0);
        let no_room = room.as_ref().err().map(ToString::to_string);
        if no_room == self.no_room {
            return room;
        }
        match &no_room {
            Some(error) => tracing::error!(%error, "nothing new is accepted: jobs that are there go on"),
            None => tracing::info!("new jobs are accepted again"),
        }
        if self.pause == FIRST_PAUSE {
            self.queue.set_failing(no_room.clone());
        }
        self.no_room = no_room;
        room
    }
}
