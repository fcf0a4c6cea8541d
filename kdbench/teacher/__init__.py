"""The teacher: where its logits come from, and the cache that keeps them on disk for every run to read."""

from kdbench.teacher.bank import BankKey, LogitBank
from kdbench.teacher.recorded import RecordedTeacher, make_signal, recorded_bytes, room
from kdbench.teacher.signal import BankedTeacher, LiveTeacher, TeacherSignal
from kdbench.teacher.topk import truncate

__all__ = [
    "BankKey",
    "BankedTeacher",
    "LiveTeacher",
    "LogitBank",
    "RecordedTeacher",
    "TeacherSignal",
    "make_signal",
    "recorded_bytes",
    "room",
    "truncate",
]
