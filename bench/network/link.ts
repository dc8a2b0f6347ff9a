// What a shaped link really carries: a plain TCP connection from one host to another, for a moment.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Network } from './namespaces.js';

const PORT = 7999;
const MEASURE_MS = 1500;
/** Left out at the beginning: the connection finds its speed. */
const SETTLE_MS = 500;

const SINK = `
  const server = require('net').createServer((socket) => {
    let bytes = 0, from = 0, begun = Infinity;
    socket.on('data', ({ length }) => {
      if (from === 0) begun = Date.now() + ${SETTLE_MS}, from = 1;
      if (Date.now() >= begun) bytes += length;
    });
    socket.on('end', () => {
      console.log(bytes / (Date.now() - begun) * 1000);
      process.exit();
    });
  }).listen(${PORT}, () => console.log('ready'));
`;
const SPRING = `
  const socket = require('net').connect(${PORT}, process.argv[1]);
  const block = Buffer.alloc(256 * 1024);
  const more = () => { while (socket.write(block)); };
  socket.on('connect', more).on('drain', more);
  setTimeout(() => { socket.off('drain', more); socket.end(); }, ${SETTLE_MS + MEASURE_MS});
`;

/** Bytes a second that a TCP connection carries from `from` to `to`. */
export async function lineBytesPerS(network: Network, from: string, to: string): Promise<number> {
  const [launcher, ...onSink] = network.on(to);
  const sink = spawn(launcher!, [...onSink, process.execPath, '-e', SINK], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: sink.stdout })[Symbol.asyncIterator]();
  try {
    await lines.next();
    const [, ...onSpring] = network.on(from);
    const args = [...onSpring, process.execPath, '-e', SPRING, network.address(to)];
    const spring = spawn(launcher!, args, { stdio: 'inherit' });
    await once(spring, 'exit');
    return Number((await lines.next()).value);
  } finally {
    sink.kill('SIGKILL');
  }
}
