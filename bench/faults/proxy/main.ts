// The process that the proxies of a run live in: its parent tells it what to do, and it ends with its parent.
import { TcpProxy, type Totals } from './proxy.js';
import type { Answer, Command } from './rule.js';

const totals: Totals = { frames: 0, tampered: 0, resets: 0, resetAt: null, lie: null };
const proxies: TcpProxy[] = [];

async function answer(command: Command): Promise<Answer> {
  const { call, add, set, resetAt, liar, counts } = command;
  if (add) {
    const proxy = new TcpProxy(add.target, totals);
    const address = await proxy.listen();
    return { call, added: { proxy: proxies.push(proxy) - 1, address } };
  }
  if (set) proxies[set.proxy]!.rule = set.rule;
  if (resetAt !== undefined) totals.resetAt = totals.frames + resetAt;
  if (liar) totals.lie = { how: liar.how, honest: liar.answer - 1, liar: null };
  return counts
    ? { call, counts: { frames: totals.frames, tampered: totals.tampered, resets: totals.resets } }
    : { call };
}

process.on('message', (command: Command) => {
  answer(command)
    .catch((error: Error) => ({ call: command.call, error: error.message }))
    .then((said) => process.send?.(said));
});
process.on('disconnect', () => process.exit());
