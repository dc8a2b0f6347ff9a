// What one run happens in: a directory, seeded images, nodes, a destination, a source, each a process of its own, and proxies between them where
// the fault needs them. `close` ends all of it, and says what would not end.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Servers } from '../stores/servers.js';
import { type ClusterStore, cluster } from '../stores/stores.js';
import { writeImage } from './image.js';
import type { Credentials } from './keys.js';
import type { Random } from './random.js';
import { SessionRecorder } from './recorder.js';
import type { Role } from './role.js';
import { Stage } from './stage.js';

/** How a run is set up; rates so that scattering takes a second and gathering twice as long. */
export interface SceneOptions {
  readonly nodes?: number;
  /** Of each node, one value for all or one for each. */
  readonly memory?: string | readonly string[];
  readonly replicas?: number;
  readonly imagePages?: number;
  /** Bytes a second, as on the command line; null for none. */
  readonly sourceRate?: string | null;
  readonly destinationRate?: string | null;
  /** Proxies before every node, and before the destination. */
  readonly proxied?: boolean;
  /** A process leaves together with the image. */
  readonly withProcess?: boolean;
  /** Made for this scene, in a directory of it: every role has them. */
  readonly credentials?: (directory: string) => Credentials;
  /** The source finds the nodes by what they announce. */
  readonly announced?: boolean;
  /** What the source says to the first node is recorded. */
  readonly recorded?: boolean;
  /** No nodes, but a cluster of Valkey, of which each primary has so many replicas. */
  readonly clusterReplicas?: number | null;
}

const DEFAULTS = {
  nodes: 3,
  memory: '64M',
  replicas: 1,
  imagePages: 5120,
  sourceRate: '8MB',
  destinationRate: '3MB',
  proxied: false,
  withProcess: false,
  announced: false,
  recorded: false,
  clusterReplicas: null,
};

/** What the source said before it ended has arrived by then. */
const HEAR_MS = 1_000;

export class Scene extends Stage {
  readonly options: typeof DEFAULTS & SceneOptions;
  readonly image: string;
  readonly out: string;
  /** Where the process goes, if one leaves. */
  readonly processOut: string;
  source!: Role;
  destination!: Role;
  /** `cat`: it has little memory, and answers as long as it runs. */
  #process: ChildProcess | null = null;
  /** Where the destination listens itself, and where the source finds it. */
  #listen = '127.0.0.1:0';
  #to = '';
  recorder: SessionRecorder | null = null;
  cluster: ClusterStore | null = null;
  readonly #servers: Servers;

  constructor(random: Random, options: SceneOptions = {}) {
    super(random, options.credentials);
    this.options = { ...DEFAULTS, ...options } as typeof DEFAULTS & SceneOptions;
    this.#servers = new Servers(this.dir);
    mkdirSync(join(this.dir, 'images'));
    this.image = join(this.dir, 'images', 'in');
    this.out = join(this.dir, 'images', 'out');
    this.processOut = join(this.dir, 'images', 'out-process');
  }

  /** Image, nodes and destination; not yet the source. */
  async open(): Promise<this> {
    const { memory, imagePages, proxied, clusterReplicas } = this.options;
    const nodes = clusterReplicas === null ? this.options.nodes : 0;
    writeImage(this.image, imagePages, this.random.below(2 ** 32));
    if (proxied) this.useProxies();
    if (this.options.withProcess) this.#process = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
    const sizes = Array.from({ length: nodes }, (_, i) => (typeof memory === 'string' ? memory : memory[i]!));
    await Promise.all(sizes.map((size) => this.addNode(size)));
    if (clusterReplicas !== null) this.cluster = await cluster(this.#servers, clusterReplicas);
    if (this.options.recorded) this.recorder = await new SessionRecorder(this.nodes[0]!.ownAddress).listen();
    await this.startDestination();
    return this;
  }

  /** A destination, or the same one again where it was. */
  async startDestination(): Promise<void> {
    const { destinationRate } = this.options;
    const rate = destinationRate ? ['--rate', destinationRate] : [];
    const images = [`a=file:${this.out}`, ...(this.#process ? [`p=file:${this.processOut}`] : [])];
    const args = ['merge', ...images, '--listen', this.#listen, ...rate, ...this.secured, ...this.#stores];
    this.destination = this.start('destination', args, 'there');
    this.#listen = await this.destination.address();
    if (this.#to === '') this.#to = this.proxies ? (await this.proxies.add(this.#listen)).address : this.#listen;
  }

  startSource(...more: string[]): Role {
    const { replicas, sourceRate, announced } = this.options;
    const addresses = this.nodes.map(({ address }) => address);
    if (this.recorder) addresses[0] = this.recorder.address;
    const nodes = announced || this.cluster ? this.#stores : ['--intermediates', addresses.join(',')];
    const images = [`a=file:${this.image}`, ...(this.#process ? [`p=process:${this.#process.pid}`] : [])];
    const args = ['eject', ...images, '--to', this.#to, ...nodes, ...this.secured];
    if (replicas > 1) args.push('--replicas', String(replicas));
    if (sourceRate) args.push('--rate', sourceRate);
    this.source = this.start('source', [...args, ...more]);
    return this.source;
  }

  /** Until both ends have ended, however they do. A destination that has heard of no source would wait for ever: it is told to stop. */
  async ended(): Promise<void> {
    await this.source.ended;
    const { source, destination } = this;
    if (source.code !== 0) {
      const heard = await Promise.race([destination.event(({ type }) => type === 'images'), sleep(HEAR_MS)]);
      if (!heard) destination.signal('SIGTERM');
    }
    await destination.ended;
  }

  /** Whether the process that was to leave runs as before; true if there is none. */
  async processAnswers(): Promise<boolean> {
    if (!this.#process) return true;
    this.#process.stdin!.write('?');
    return Promise.race([once(this.#process.stdout!, 'data').then(() => true), sleep(1_000, false)]);
  }

  get #stores(): string[] {
    return this.cluster?.urls.flatMap((url) => ['--store', url]) ?? [];
  }

  override async close(): Promise<string[]> {
    const stuck = await super.close();
    await this.#servers.end();
    this.#process?.kill('SIGKILL');
    this.recorder?.close();
    return stuck;
  }

  override kill(): void {
    void this.#servers.end();
    this.#process?.kill('SIGKILL');
    super.kill();
  }
}
