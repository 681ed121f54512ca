"""What an exchange would list now, by the events that it has sent: for the simulator's replays and
for tests of gaps."""

from datetime import UTC, datetime, timedelta

from connectors.partners.ats.ami import Packet


class Mirror:
    """Channels, members and waiting callers, as CoreShowChannels and QueueStatus would show them.

    As in the real exchange, channels that share a basic bridge have one Linkedid, and nobody is
    told of it.
    """

    def __init__(self) -> None:
        self._channels: dict[str, Packet] = {}
        self._began: dict[str, datetime] = {}
        self._members: dict[tuple[str, str], Packet] = {}
        self._entries: dict[str, tuple[Packet, datetime]] = {}

    def note(self, packet: Packet, at: datetime) -> None:
        """Take an event that was sent."""
        id, channel = packet["Uniqueid"], self._channels.get(packet["Uniqueid"])
        match packet.event:
            case "Newchannel":
                self._channels[id] = Packet(packet)
                self._began[id] = at
            case "Hangup":
                self._channels.pop(id, None)
                self._entries.pop(id, None)
            case "BridgeEnter" if channel is not None:
                channel |= {"BridgeId": packet["BridgeUniqueid"], "Linkedid": packet["Linkedid"]}
                self._link(packet)
            case "BridgeLeave" if channel is not None:
                channel["BridgeId"] = ""
            case "QueueMemberStatus" | "QueueMemberAdded":
                self._members[packet["Queue"], packet["MemberName"]] = packet
            case "QueueCallerJoin":
                self._entries[id] = packet, at
                if channel is not None:
                    data = {"Application": "Queue", "ApplicationData": f"{packet['Queue']},tT"}
                    channel.update(data)
            case "QueueCallerLeave":
                self._entries.pop(id, None)
        if channel is not None:
            for key in ("ChannelState", "Exten", "Context", "CallerIDNum", "ConnectedLineNum"):
                channel[key] = packet[key] or channel[key]

    def _link(self, packet: Packet) -> None:
        if packet["BridgeType"] in ("", "basic"):
            for other in self._channels.values():
                if other["BridgeId"] == packet["BridgeUniqueid"]:
                    other["Linkedid"] = packet["Linkedid"]

    def channels(self, now: datetime) -> list[Packet]:
        """Return what CoreShowChannels lists."""
        listed = []
        for id, channel in self._channels.items():
            age = max(timedelta(0), now - self._began[id])
            shown = {**channel, "Event": "CoreShowChannel", "Duration": _clock(age)}
            shown.pop("Timestamp", None)
            listed.append(Packet(shown))
        return listed

    def queues(self, now: datetime) -> list[Packet]:
        """Return what QueueStatus lists."""
        listed = [
            Packet(Event="QueueMember", Queue=queue, Name=name, Location=one["Interface"],
                   Status=one["Status"], Paused=one["Paused"] or "0")
            for (queue, name), one in self._members.items()
        ]  # fmt: skip
        for id, (one, joined) in self._entries.items():
            waits = str(int((now - joined).total_seconds()))
            listed.append(Packet(Event="QueueEntry", Queue=one["Queue"], Uniqueid=id, Wait=waits))
        return listed


def _clock(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def moment(packet: Packet) -> datetime:
    """Return when an event of a capture happened, by its Timestamp; now if it has none."""
    told = packet["Timestamp"]
    return datetime.fromtimestamp(float(told), UTC) if told else datetime.now(UTC)
