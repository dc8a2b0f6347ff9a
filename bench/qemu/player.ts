// A client that plays a guest's stream until it is told to end by the end of its input; a process of its own, on a host of its own. player.js ADDRESS
import { createHash } from 'node:crypto';
import { get } from 'node:http';
import { now } from './serial.js';
import { type Heard, NOTABLE_MS } from './stream.js';

const say = (heard: Heard) => void process.stdout.write(`${JSON.stringify(heard)}\n`);

const hash = createHash('sha256');
let bytes = 0;
let lastMs = 0;
let over = false;

function end(broken: string | null): void {
  if (over) return;
  over = true;
  say({ type: 'played', bytes, sha256: hash.digest('hex'), broken });
  request.destroy();
  process.exitCode = broken === null ? 0 : 1;
}

const request = get({ host: process.argv[2], port: 80, agent: false }, (response) => {
  lastMs = now();
  let second = Math.floor(lastMs / 1000);
  say({ type: 'playing' });
  response.on('data', (data: Buffer) => {
    if (over) return;
    const atMs = now();
    if (atMs - lastMs >= NOTABLE_MS) say({ type: 'silence', ms: Math.round(atMs - lastMs), atMs });
    lastMs = atMs;
    hash.update(data);
    bytes += data.length;
    if (Math.floor(atMs / 1000) === second) return;
    second = Math.floor(atMs / 1000);
    say({ type: 'second', bytes });
  });
  response.on('error', (error) => end(error.message));
  response.on('end', () => end('the guest has closed it'));
});
request.on('error', (error) => end(error.message));
process.stdin.on('end', () => end(null)).resume();
