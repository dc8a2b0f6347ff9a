// The network that guests are on, beside the one that they move over: a second card of both hosts, a bridge on each, and a client.
//
//   source                     destination               client
//   tap1 -- guests -- card     tap1 -- guests -- card     card 10.78.0.1
//                      |                          |        |
//                     l1 ----------- br1 --------- l2 ---- l3       in the namespace of the switch
//
// A guest keeps its address: QEMU announces it by RARP from where it goes on, and the bridges learn. Nothing is shaped here: what a stream waits for is the guest.
import { type Network, run } from '../network/namespaces.js';

const CLIENT = '10.78.0.1';

/** Where a guest is attached, on both hosts. A run has another address than the one before: nobody has learned yet where that is. */
export interface Attachment {
  readonly tap: string;
  readonly address: string;
  readonly mac: string;
}

export class Lan {
  readonly #network: Network;
  #attached = 0;

  /** @param network has the hosts `source`, `destination` and `client`. */
  constructor(network: Network, taps: readonly string[]) {
    this.#network = network;
    const hub = network.namespace('switch');
    run('ip', '-n', hub, 'link', 'add', 'br1', 'type', 'bridge');
    run('ip', '-n', hub, 'link', 'set', 'br1', 'up');
    for (const [i, name] of ['source', 'destination', 'client'].entries()) {
      const host = network.namespace(name);
      const port = `l${i + 1}`;
      run('ip', '-n', hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'card', 'netns', host);
      run('ip', '-n', hub, 'link', 'set', port, 'master', 'br1', 'up');
      run('ip', '-n', host, 'link', 'set', 'card', 'up');
      if (name === 'client') run('ip', '-n', host, 'address', 'add', `${CLIENT}/24`, 'dev', 'card');
      else this.#bridge(host, taps);
    }
  }

  /** For another guest on this tap. */
  attach(tap: string): Attachment {
    const number = (this.#attached++ % 200) + 10;
    return { tap, address: `10.78.0.${number}`, mac: `52:54:00:78:00:${number.toString(16).padStart(2, '0')}` };
  }

  /** What comes before a command so that it is a client of guests. */
  client(): string[] {
    return this.#network.on('client');
  }

  #bridge(host: string, taps: readonly string[]): void {
    run('ip', '-n', host, 'link', 'add', 'guests', 'type', 'bridge');
    run('ip', '-n', host, 'link', 'set', 'guests', 'up');
    run('ip', '-n', host, 'link', 'set', 'card', 'master', 'guests');
    for (const tap of taps) {
      run('ip', '-n', host, 'tuntap', 'add', 'dev', tap, 'mode', 'tap');
      run('ip', '-n', host, 'link', 'set', tap, 'master', 'guests', 'up');
    }
  }
}
