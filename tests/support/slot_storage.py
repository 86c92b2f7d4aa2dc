"""A storage without tensors, in which each slot remembers what it was computed from."""


class SlotStorage:
    """One value for each slot: all that K and V in it depend on. A slot that was never written has none.

    So a wrong page, a missing copy or a stale slot is found at the moment it is read.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self.slots: dict[int, object] = {}
        self.num_copied = 0

    def copy(self, source: int, target: int, num_slots: int) -> None:
        """Copy the first slots of one page to another."""
        for slot in range(num_slots):
            self.slots[target * self.page_size + slot] = self.slots[source * self.page_size + slot]
        self.num_copied += num_slots
