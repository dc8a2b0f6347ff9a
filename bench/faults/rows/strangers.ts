// Those who are not of the cluster: they knock while an honest migration runs, are refused and counted, and it does not feel them.
import { connect as tcp } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AbdmError } from '#abdm/bindings/errors.js';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { encodeHeader, HEADER_BYTES, MessageType, PROTOCOL_VERSION } from '#abdm/host/wire/messages.js';
import { OPEN, type Security } from '#abdm/host/wire/security.js';
import type { Fault, Run } from '../fault.js';
import { Authority, type Credentials, makeKey } from '../keys.js';
import { AnnouncementRecorder } from '../recorder.js';

/** How often a stranger tries each door. */
const KNOCKS = 4;
const HELLO = encodeJson({ protocol: PROTOCOL_VERSION, role: 'source', migration: 'e'.repeat(32) });

/** Resolves to true if somebody with these credentials is let in: if his HELLO is answered. */
async function isLetIn(address: string, security: Security): Promise<boolean> {
  return new Promise((resolve) => {
    const handler = {
      onMessage: () => resolve(true),
      onClose: () => resolve(false),
    };
    connect(address, handler, { timeoutMs: 3_000, ...{ security } }).then(
      (channel) => channel.send(MessageType.HELLO, 0, HELLO),
      (error: AbdmError) => {
        if (!['UNAUTHENTICATED', 'PEER_UNREACHABLE', 'PEER_GONE'].includes(error.code)) throw error;
        resolve(false);
      },
    );
  });
}

/** The same without TLS, for those who do not know of it. */
async function isLetInPlain(address: string): Promise<boolean> {
  const [host, port] = address.split(':') as [string, string];
  const header = new Uint8Array(HEADER_BYTES);
  encodeHeader(header, 0, MessageType.HELLO, HELLO.byteLength, 0);
  return new Promise((resolve) => {
    const socket = tcp(Number(port), host, () => socket.write(Buffer.concat([header, HELLO])));
    socket.on('data', ([type]) => resolve(type === MessageType.WELCOME));
    socket.on('error', () => resolve(false));
    socket.on('close', () => resolve(false));
  });
}

async function knock({ scene, verdict }: Run, security: Security | null): Promise<void> {
  const doors = [...scene.nodes.map(({ ownAddress }) => ownAddress), await scene.destination.address()];
  for (let i = 0; i < KNOCKS; i++) {
    for (const door of doors) {
      const letIn = security ? await isLetIn(door, security) : await isLetInPlain(door);
      verdict.expect(!letIn, `${door} let a stranger in`);
    }
  }
}

/** How many strangers each node has refused, as `abdm status` says. */
async function expectCounted({ scene, verdict }: Run, least: number): Promise<void> {
  for (const { role, ownAddress } of scene.nodes) {
    const status = scene.start('status', ['status', ownAddress]);
    await status.ended;
    const refused = refusedOf(status.events.find(({ type }) => type === 'role'));
    verdict.expect(refused >= least, `${role.name} has counted ${refused} refused connections, not ${least}`);
  }
}

/** Somewhere in what a role says of itself. */
function refusedOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const own = 'refused' in value && typeof value.refused === 'number' ? value.refused : 0;
  return Math.max(own, ...Object.values(value).map(refusedOf));
}

interface Stranger {
  readonly name: string;
  /** Whose credentials the cluster has. */
  cluster(directory: string): Credentials;
  /** Nodes are found by what they announce. */
  readonly announced?: boolean;
  /** While the migration runs. */
  come(run: Run, directory: string): Promise<void>;
}

const authorities = new Map<string, Authority>();

/** A cluster with certificates; the authority is kept for the stranger. */
function certified(directory: string): Credentials {
  const authority = new Authority(directory, 'cluster');
  authorities.set(directory, authority);
  return authority.issue('member', 2);
}

const keyed = (directory: string) => makeKey(directory, 'cluster');

async function comeWith(run: Run, security: Security | null): Promise<void> {
  await knock(run, security);
  await expectCounted(run, KNOCKS);
}

const STRANGERS: readonly Stranger[] = [
  { name: 'no key', cluster: keyed, come: (run) => comeWith(run, null) },
  { name: 'wrong key', cluster: keyed, come: (run, directory) => comeWith(run, makeKey(directory, 'other').security) },
  {
    name: 'expired certificate',
    cluster: certified,
    come: (run, directory) => comeWith(run, authorities.get(directory)!.issue('expired', -1).security),
  },
  {
    name: 'foreign certificate',
    cluster: certified,
    async come(run, directory) {
      const { tls } = new Authority(directory, 'foreign').issue('stranger', 2).security;
      // He believes us; we do not believe him.
      const { ca } = run.scene.credentials!.security.tls!;
      await comeWith(run, { clusterKey: null, tls: { ...tls!, ca } });
    },
  },
  { name: 'replayed announcement', cluster: keyed, announced: true, come: replayAnnouncements },
  { name: 'replayed session', cluster: keyed, come: replaySessions },
];

/** A node dies, and what it announced is said again, as it was and changed: nobody believes that it lives. */
async function replayAnnouncements({ scene, verdict, note }: Run): Promise<void> {
  const recorder = await new AnnouncementRecorder(scene.announcements).listen();
  const listener = scene.start('nodes', ['nodes', '--watch', '--announcements', scene.announcements, ...scene.secured]);
  const dead = await scene.addNode('64M');
  try {
    const named = (datagram: Buffer) => datagram.includes(dead.ownAddress);
    while (recorder.datagrams.filter(named).length < 2) await sleep(50);
    await listener.event(({ type, address }) => type === 'node' && address === dead.ownAddress);
    dead.role.signal('SIGKILL');
    await dead.role.ended;
    const heard = recorder.datagrams.filter(named);
    for (let i = 0; i < 3 * KNOCKS; i++) {
      for (const datagram of heard) {
        const changed = Buffer.from(datagram);
        changed[50]! ^= 1;
        await recorder.say(datagram);
        await recorder.say(changed);
      }
      await sleep(400);
    }
    const last = listener.events.findLast(({ type, address }) => type === 'node' && address === dead.ownAddress);
    verdict.expect(last?.state !== 'up', `${dead.role.name} is dead, and said to be ${last?.state}`);
  } finally {
    recorder.close();
    listener.signal('SIGTERM');
    await listener.ended;
  }
  const { forged = 0, replayed = 0 } = (listener.events.findLast(({ type }) => type === 'nodes')?.counts ?? {}) as {
    forged?: number;
    replayed?: number;
  };
  note(`${replayed} replayed, ${forged} forged`);
  verdict.expect(replayed >= KNOCKS, `${replayed} replayed announcements were counted`);
  verdict.expect(forged >= KNOCKS, `${forged} forged announcements were counted`);
}

/** What a source said to a node, TLS and all, is said to it again: it is no other session. */
async function replaySessions(run: Run): Promise<void> {
  const { scene, verdict, note } = run;
  const { recorder } = scene;
  const answers: Buffer[] = [];
  for (const session of recorder!.sessions) {
    // The handshake at least, and whatever else there is by now.
    while (session.length < 3 && !scene.source.over) await sleep(20);
    for (let i = 0; i < KNOCKS; i++) answers.push(await recorder!.replay([...session]));
  }
  note(`${answers.length} sessions said again`);
  verdict.expect(answers.length >= KNOCKS, 'no session was recorded');
  const status = scene.start('status', ['status', scene.nodes[0]!.ownAddress]);
  await status.ended;
  const refused = refusedOf(status.events.find(({ type }) => type === 'role'));
  verdict.expect(refused >= KNOCKS, `${refused} refused connections were counted`);
}

const strangers: Fault = {
  name: 'strangers',
  promise:
    'no key, wrong key, expired or foreign certificate, replayed announcement, replayed session: refused, counted, honest traffic unharmed',
  scene: (_random, seed) => {
    const { cluster, announced = false, name } = strangerOf(seed);
    return { nodes: 3, credentials: cluster, announced, recorded: name === 'replayed session', sourceRate: '6MB' };
  },
  async run(run) {
    const { scene, verdict, seed, note } = run;
    const stranger = strangerOf(seed);
    note(stranger.name);
    scene.startSource();
    await scene.source.reaches(({ phase }) => phase === 'dividing');
    await stranger.come(run, scene.dir);
    await scene.ended();
    verdict.completed(scene);
    const security = scene.credentials?.security ?? OPEN;
    const living = scene.nodes.filter(({ role }) => !role.over);
    await verdict.empty(living, 2_000, security);
  },
};

function strangerOf(seed: number): Stranger {
  return STRANGERS[(seed - 1) % STRANGERS.length]!;
}

export const STRANGER_FAULTS: readonly Fault[] = [strangers];
