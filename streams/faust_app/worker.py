"""The worker: one Faust app with a match stage over the source topics and a correlate stage over the matches topic.

Everything that ends it ends the process: an exception in an agent (its chunk is not acknowledged), a crash of Faust, a chunk
that waits too long. The supervisor starts it again; nothing acknowledged is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import limits
from streams.codec.avro import Codec
from streams.concurrency import cancelled
from streams.correlation.costs import TooDear
from streams.correlation.index import RuleIndex
from streams.correlation.rule_figures import MATCHING
from streams.correlation.rules import ActiveRule
from streams.errors import BackboneError, Defect
from streams.faust_app.action_stage import ActionStage
from streams.faust_app.control import Change, RulesReader, StartsReader
from streams.faust_app.correlate_stage import Owner
from streams.faust_app.feed import Feed, Subscription
from streams.faust_app.handover import Handover
from streams.faust_app.match_stage import MatchStage
from streams.faust_app.ports import WorkerPorts
from streams.faust_app.prefix import Chunk
from streams.faust_app.route_part import RoutePart
from streams.kafka import Kafka, start
from streams.matching.matchers import DEFAULT_TOPICS
from streams.records import Json, derived_id
from streams.topics import COMPOSITES, CONTROL_ROUTES, CONTROL_RULES, CONTROL_WORKFLOWS, MATCHES

#: The rhythm of watermarks once all source partitions of this worker were idle for `QUIET_AFTER_S`: only the wall clock moves then.
QUIET_INTERVAL_S = 1.0
QUIET_AFTER_S = 10.0
#: A chunk that waits longer than this for its acknowledgement means that the worker hangs.
STUCK_AFTER_S = 120.0
_WATCH_INTERVAL_S = 0.5
_TOPICS_INTERVAL_S = 5.0
_CATCH_UP_S = 10.0

_log = structlog.get_logger("worker")


class SourcesChanged(Exception):
    """Rules read `topics` that the Faust app is not subscribed to."""

    def __init__(self, topics: set[str]) -> None:
        super().__init__(", ".join(sorted(topics)))
        self.topics = topics


class Worker:
    """See the module."""

    def __init__(self, kafka: Kafka, codec: Codec, *, name: str, static: bool = False, ports: WorkerPorts | None = None) -> None:
        """`name` is unique among living workers; with `static` it is also the static member id of the consumer group."""
        self._kafka = kafka
        self._codec = codec
        self._name = name
        self._static = static
        self._ports = ports or WorkerPorts()
        self._rules = RulesReader(kafka, codec)
        self._starts = StartsReader(kafka, codec)
        self._routes = RoutePart(kafka, codec, enabled=self._ports.routes, failed=self.fail, next_offset=self._next_offset)
        self._matched: frozenset[str] = frozenset()  # topics that rules and triggers read; the others are routes' alone
        self._owners: dict[int, Owner] = {}
        self._sources: set[tuple[str, int]] = set()
        self._failure: asyncio.Future[None] | None = None
        self._feed: Feed | None = None
        self._stage: MatchStage | None = None
        self._takeovers: set[asyncio.Task[None]] = set()
        self._caught_up = asyncio.Event()  #: rules and triggers are no older than the assignment of the partitions
        self.ready = asyncio.Event()  #: partitions are assigned and taken, rules are loaded
        self.reached = asyncio.Event()  #: set whenever the control offset has moved

    # --- what the heartbeat tells ---

    def control_offsets(self) -> dict[str, int]:
        """Next offset to read per control topic (logical names): everything before it is in force here."""
        return {
            CONTROL_RULES: self._rules.offset,
            CONTROL_WORKFLOWS: self._starts.offset,
            **({CONTROL_ROUTES: self._routes.offset} if self._routes.enabled else {}),
        }

    def partitions(self) -> list[str]:
        """Partitions held, `topic/partition`, logical names."""
        return [f"{topic}/{partition}" for topic, partition in sorted(self._sources | {(MATCHES, p) for p in self._owners})]

    def rule_figures(self) -> dict[str, dict[str, Json]]:
        """What has happened to the records of each rule, by place: the match stage, and each partition of matches."""
        places = {str(partition): owner.figures() for partition, owner in self._owners.items()}
        return places if self._stage is None else {MATCHING: self._stage.tallies.figures(), **places}

    def too_dear(self) -> dict[str, tuple[ActiveRule, TooDear]]:
        """The rules that cost more here than rules may."""
        found = {} if self._stage is None else dict(self._stage.too_dear)
        for owner in self._owners.values():
            found |= owner.costs.too_dear
        return found

    # --- life ---

    async def run(self) -> None:
        """Runs until cancelled; raises what went wrong."""
        while True:
            try:
                await self._serve()
            except SourcesChanged as change:
                # Faust would subscribe to further topics only after 45 s; beginning anew takes one second and loses nothing.
                _log.info("worker.sources-changed", topics=sorted(change.topics))

    async def _serve(self) -> None:
        """One life of the Faust app; ends by `SourcesChanged` or what went wrong."""
        self._failure = asyncio.get_running_loop().create_future()
        producer = self._kafka.new_producer()
        snapshots = self._kafka.new_producer(max_batch_size=limits.LOG_MESSAGE_BYTES_MAX - 1024 * 1024)
        await start(producer)
        await start(snapshots)
        matches = self._kafka.names.physical(MATCHES)
        partitions = len(await producer.partitions_for(matches))
        handover = Handover(matches, self._owners, self.fail)
        stage = self._stage = MatchStage(self._kafka, self._codec, producer, partitions=partitions, name=self._name, written=handover.offer)
        actions = ActionStage(self._kafka, self._codec, failed=self.fail, ports=self._ports)
        new_owner = self._owner_factory(snapshots, actions)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._rules.open()
            await self._starts.open()
            await self._routes.read()
            await stage.use(list(self._rules.latest.values()), RuleIndex(self._rules.active()))
            await stage.use_starts(self._starts.index())
            # The composites, too, so that a rule that reads them is in force at once, from what is said now on.
            self._matched = frozenset({*DEFAULT_TOPICS, COMPOSITES, *await self._existing(stage.topics)})
            sources = sorted(self._matched | await self._existing(self._routes.topics))
            counts = {topic: len(await producer.partitions_for(self._kafka.names.physical(topic))) for topic in sorted(self._matched)}
            await self._routes.open(self._matched)
            feed = self._feed = self._ports.open_feed(self._subscription(stage, sources, counts, new_owner, handover))
            await feed.start()
            tasks = [
                asyncio.create_task(self._follow_rules(stage, sources)),
                asyncio.create_task(self._follow_starts(stage, sources)),
                asyncio.create_task(self._follow_routes(stage, sources)),
                asyncio.create_task(self._write_watermarks(stage, counts)),
                asyncio.create_task(self._watch(feed)),
                asyncio.create_task(self._watch_topics(stage, sources)),
            ]
            await asyncio.wait([self._failure, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            self._failure.result()
        finally:
            tasks += self._takeovers
            await cancelled(*tasks)
            failed = self._failure.done()
            await self._routes.retire()
            if self._feed is not None:
                await self._feed.stop()
            await handover.close()
            for owner in list(self._owners.values()):
                await owner.close(checkpoint=not failed)
            self._owners, self._feed, self._stage = {}, None, None
            await self._rules.close()
            await self._starts.close()
            await self._routes.close()
            await stage.close()
            await actions.close()
            await producer.stop()
            await snapshots.stop()

    def fail(self, error: BaseException) -> None:
        """Ends the worker with this error."""
        if self._failure is not None and not self._failure.done():
            _log.error("worker.failed", error=f"{type(error).__name__}: {error}")
            self._failure.set_exception(error)

    def _next_offset(self, topic: str, partition: int) -> int | None:
        place = None if self._feed is None else self._feed.place(topic, partition)
        return None if place is None else place[0]

    def _owner_factory(self, snapshots: AIOKafkaProducer, actions: ActionStage) -> Callable[[int], Owner]:
        turn = asyncio.Lock()
        return lambda partition: Owner(
            self._kafka, self._codec, snapshots, partition, name=self._name, ports=self._ports, actions=actions.partition(partition),
            turn=turn,
        )  # fmt: skip

    def _subscription(
        self, stage: MatchStage, sources: Sequence[str], counts: Mapping[str, int], new_owner: Callable[[int], Owner], handover: Handover
    ) -> Subscription:
        names, settings = self._kafka.names, self._kafka.settings

        def is_current(chunk: Chunk) -> bool:
            """What still lay in a queue when the partitions were shared anew is fetched again, with what was before it."""
            return self._feed is not None and self._feed.is_current(chunk)

        async def match(chunk: Chunk) -> None:
            await self._caught_up.wait()
            if is_current(chunk):
                await self._routes.take(chunk)
                if names.logical(chunk.topic) in self._matched:
                    await handover.room()
                    await stage.handle(chunk)

        async def correlate(chunk: Chunk) -> None:
            if not is_current(chunk):
                return
            owner = self._owners.get(chunk.partition)
            if owner is not None:
                await owner.handle(chunk)
                handover.look(chunk.partition)
            else:
                # Returning would acknowledge it.
                raise Defect("worker.no-owner", f"Nobody owns partition {chunk.partition} of {MATCHES}, which is assigned to this worker.")

        async def assigned(held: set[tuple[str, int]]) -> None:
            await self._assigned({(names.logical(topic), partition) for topic, partition in held}, stage, new_owner)

        def unhurried() -> set[tuple[str, int]]:
            """Composites that nothing reads, and matches that are handed over here, if all of them are."""
            found: set[tuple[str, int]] = set()
            if COMPOSITES not in stage.topics | self._routes.topics:
                found.update((names.physical(COMPOSITES), partition) for partition in range(counts[COMPOSITES]))
            if len(self._sources) == sum(counts.values()):
                found.update((names.physical(MATCHES), partition) for partition in self._owners if handover.keeps_up(partition))
            return found

        return Subscription(
            settings=settings,
            group=f"{settings.topic_prefix}-worker",
            # A static member that comes back gets its old partitions without a rebalance, also if it asks for other topics than before:
            # so who reads other topics is another member. The former one is missed after the session's timeout.
            instance=f"{self._name}-{derived_id('sources', *sources)[:8]}" if self._static else None,
            handlers={
                **{names.physical(topic): (f"match {topic}", match) for topic in sources},
                names.physical(MATCHES): ("correlate", correlate),
            },
            assigned=assigned,
            failed=self.fail,
            unhurried=unhurried,
            revoked=self._routes.revoked,
            tenure=self._routes.tenure,
        )

    async def _assigned(self, held: set[tuple[str, int]], stage: MatchStage, new_owner: Callable[[int], Owner]) -> None:
        """After a rebalance: takeovers run beside it, so that a long one does not hold up the group."""
        mine = {partition for topic, partition in held if topic == MATCHES}
        self._sources = {place for place in held if place[0] in self._matched}
        stage.forget(self._sources)
        self._routes.assigned({place for place in held if place[0] != MATCHES})
        gone = [self._owners.pop(partition) for partition in set(self._owners) - mine]
        kept = list(self._owners.values())
        for partition in mine - self._owners.keys():
            self._owners[partition] = new_owner(partition)
        _log.info("partitions.assigned", matches=sorted(mine), sources=len(self._sources))
        self._caught_up = asyncio.Event()
        for takeover in (asyncio.create_task(self._take(gone, kept)), asyncio.create_task(self._catch_up(self._caught_up))):
            self._takeovers.add(takeover)
            takeover.add_done_callback(self._takeovers.discard)

    async def _catch_up(self, caught_up: asyncio.Event) -> None:
        """Nothing is matched by rules that were changed before the partitions became ours: we may have slept meanwhile."""
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await asyncio.gather(self._rules.catch_up(), self._starts.catch_up())
        except TimeoutError:
            # A change under way that nobody can read yet: its transaction hangs.
            _log.warning("rules.not-caught-up", rules=self._rules.offset, workflows=self._starts.offset)
            caught_up.set()
        except (BackboneError, KafkaError, OSError) as error:
            self.fail(error)
        else:
            caught_up.set()

    async def _take(self, gone: Sequence[Owner], kept: Sequence[Owner]) -> None:
        try:
            await asyncio.gather(*(owner.close() for owner in gone), *(owner.keep() for owner in kept))
            await asyncio.gather(*(owner.take() for owner in list(self._owners.values())))
        except (BackboneError, KafkaError, OSError) as error:
            self.fail(error)
        else:
            self.ready.set()

    # --- tasks ---

    async def _follow_rules(self, stage: MatchStage, sources: Sequence[str]) -> None:
        async def changed(changes: Sequence[Change]) -> None:
            index = RuleIndex(self._rules.active())
            await stage.use(changes, index)
            _log.info("rules.changed", rules=[change.rule_id for change in changes], active=len(index.rules))
            self.reached.set()
            await self._check_topics(stage, sources)

        await self._rules.follow(changed)

    async def _follow_starts(self, stage: MatchStage, sources: Sequence[str]) -> None:
        async def changed(workflows: Sequence[str]) -> None:
            await stage.use_starts(self._starts.index())
            _log.info("triggers.changed", workflows=list(workflows))
            self.reached.set()
            await self._check_topics(stage, sources)

        await self._starts.follow(changed)

    async def _follow_routes(self, stage: MatchStage, sources: Sequence[str]) -> None:
        async def changed() -> None:
            self.reached.set()
            await self._check_topics(stage, sources)

        await self._routes.follow(changed)

    async def _existing(self, topics: Collection[str]) -> set[str]:
        """Those of the topics (logical names) that the broker has. Asking for the list of all creates none."""
        async with self._kafka.consumer() as consumer:
            known = await consumer.topics()
        return {topic for topic in topics if self._kafka.names.physical(topic) in known}

    async def _check_topics(self, stage: MatchStage, sources: Sequence[str]) -> None:
        unread = (stage.topics - self._matched) | (self._routes.topics - set(sources))
        if unread and (found := await self._existing(unread)):
            raise SourcesChanged(found)

    async def _watch_topics(self, stage: MatchStage, sources: Sequence[str]) -> None:
        """A rule may name a topic before it exists."""
        while True:
            await asyncio.sleep(_TOPICS_INTERVAL_S)
            await self._check_topics(stage, sources)

    async def _write_watermarks(self, stage: MatchStage, counts: dict[str, int]) -> None:
        await self.ready.wait()
        assert self._feed is not None
        names = self._kafka.names
        quiet_since: float | None = None
        while True:
            places = []
            for topic, partition in sorted(self._sources):
                place = self._feed.place(names.physical(topic), partition)
                if place is not None:
                    places.append((topic, partition, place[1], place[0]))
            idle = await stage.write_watermark(places, counts)
            await stage.write_levels([mark for owner in self._owners.values() for mark in owner.marks])
            now = asyncio.get_running_loop().time()
            quiet_since = (quiet_since or now) if idle else None
            quiet = quiet_since is not None and now - quiet_since > QUIET_AFTER_S
            await asyncio.sleep(QUIET_INTERVAL_S if quiet else self._ports.watermark_interval_s)

    async def _watch(self, feed: Feed) -> None:
        """Ends the worker when Faust has crashed, or a chunk waits too long (a hanging agent, a group that no longer commits)."""
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            crash = feed.crash()
            if crash is not None:
                raise Defect("worker.faust-crashed", f"Faust has crashed: {type(crash).__name__}: {crash}") from crash
            if feed.waiting_s() > STUCK_AFTER_S:
                raise Defect("worker.stuck", f"A chunk waits for its acknowledgement for more than {STUCK_AFTER_S:.0f} s.")
