// Every interleaving of what two ends of a migration do, hear and suffer: never two guests that may run. And that this check finds what it is for: machines
// with one mistake each.
import { describe, expect, test } from 'vitest';
import { Giving, type Report } from '#abdm/host/ownership/giving.js';
import { Taking } from '#abdm/host/ownership/taking.js';
import { check } from './checker.js';
import type { Budget, Machines } from './world.js';

const machines: Machines = { Giving, Taking };
const QUIET: Budget = {
  stops: 2,
  breaks: 0,
  refusals: 0,
  destinationDeaths: 0,
  guestDeaths: 0,
  sourceDeaths: 0,
  nodes: 1,
};
/** All that goes wrong, once. */
const ALL: Budget = { ...QUIET, breaks: 1, refusals: 1, destinationDeaths: 1, guestDeaths: 1, sourceDeaths: 1 };

describe('in every interleaving', () => {
  test.each<[string, Budget, number]>([
    ['with all that can go wrong, once', ALL, 40_000],
    ['of a direct migration', { ...ALL, nodes: 0, stops: 3 }, 30_000],
    ['with a link that breaks again and again', { ...QUIET, breaks: 4, refusals: 1 }, 10_000],
    [
      'with destinations and guests that die again and again',
      { ...QUIET, destinationDeaths: 3, guestDeaths: 2 },
      10_000,
    ],
  ])(
    '%s at most one guest may run, and what runs is the last execution state',
    { timeout: 120_000 },
    (_, budget, worlds) => {
      const checked = check(machines, budget, false);
      expect(checked.wrong).toBeNull();
      expect(checked.worlds).toBeGreaterThan(worlds);
    },
  );

  test.each<[string, Budget]>([
    ['where nothing goes wrong', { ...QUIET, stops: 3 }],
    ['of a direct migration where nothing goes wrong', { ...QUIET, stops: 3, nodes: 0 }],
    ['with a link that breaks', { ...QUIET, breaks: 3 }],
    ['with a link that breaks, without nodes', { ...QUIET, breaks: 3, nodes: 0 }],
    ['with a destination that dies, and its guest lives on', { ...QUIET, breaks: 1, destinationDeaths: 2 }],
    [
      'with a destination that refuses, without nodes',
      { ...QUIET, breaks: 1, destinationDeaths: 1, refusals: 1, nodes: 0 },
    ],
  ])('%s it ends, with exactly one guest that runs', { timeout: 120_000 }, (_, budget) => {
    const checked = check(machines, budget, true);
    expect(checked.wrong).toBeNull();
    expect(checked.ends).toBeGreaterThan(3);
  });
});

/** Machines with one mistake, and what it leads to. */
const mistakes: [string, Partial<Machines>, RegExp][] = [
  [
    'a source that resumes what it has given',
    {
      Giving: class extends Giving {
        override resumed(): void {
          if (this.state === 'given') this.state = 'running';
          else super.resumed();
        }
      },
    },
    /may run/,
  ],
  [
    'a source that takes silence for a no',
    {
      Giving: class extends Giving {
        override linkLost(): void {
          if (this.state === 'given') this.state = 'stopped';
          super.linkLost();
        }
      },
    },
    /may run/,
  ],
  [
    'a source that believes what another guest says of itself',
    {
      Giving: class extends Giving {
        override reported(report: Report): boolean {
          return super.reported({ ...report, guest: this.taker ?? report.guest });
        }
      },
    },
    /may run|second time/,
  ],
  [
    'a source that believes a destination with another guest that it was never run',
    {
      Giving: class extends Giving {
        override refused(): void {
          this.peer = this.taker;
          super.refused();
        }
      },
    },
    /may run/,
  ],
  [
    'a source that takes back what is at the nodes',
    {
      Giving: class extends Giving {
        override giveToNodes(): void {
          super.giveToNodes();
          this.atNodes = false;
        }
      },
    },
    /take it from the nodes/,
  ],
  [
    'a source that has a guest run which took an execution state before the last one',
    {
      Giving: class extends Giving {
        override giveToNodes(): void {
          const { taker } = this;
          super.giveToNodes();
          this.taker = taker;
        }
      },
    },
    /not the last one/,
  ],
  [
    'a source that takes the answer to an earlier execution state for that to the last one',
    {
      Giving: class extends Giving {
        override loaded(guest: string): void {
          this.unanswered = 1;
          super.loaded(guest);
        }
      },
    },
    /not the last one/,
  ],
  [
    'a source that gives before the other end has it',
    {
      Giving: class extends Giving {
        override give(): void {
          if (this.state === 'offered') this.state = 'accepted';
          super.give();
        }
      },
    },
    /had not said/,
  ],
  [
    'a source that does not say RUN again',
    {
      Giving: class extends Giving {
        override reported(report: Report): boolean {
          super.reported(report);
          return false;
        }
      },
    },
    /0 guests run/,
  ],
  [
    'a destination that says that its guest runs when it only should',
    {
      Taking: class extends Taking {
        override get report(): Report['state'] {
          return this.state === 'refused' ? 'waiting' : this.state;
        }
      },
    },
    /0 guests run/,
  ],
  [
    'a destination that does not ask its guest whether it has run',
    {
      Taking: class extends Taking {
        constructor(_hasRun: boolean, isLost?: boolean) {
          super(false, isLost);
        }
      },
    },
    /may run|second time/,
  ],
  [
    'a destination that runs what another guest was to run',
    {
      Taking: class extends Taking {
        constructor(hasRun: boolean) {
          super(hasRun);
        }
      },
    },
    /second time/,
  ],
  [
    'a destination that runs what it has refused',
    {
      Taking: class extends Taking {
        override run(): void {
          if (this.state === 'refused') this.state = 'loaded';
          super.run();
        }
      },
    },
    /may run/,
  ],
  [
    'a destination that takes back what has run',
    {
      Taking: class extends Taking {
        override ran(): void {
          super.ran();
          this.hasRun = false;
          this.notRun();
        }
      },
    },
    /second time|may run|0 guests/,
  ],
  [
    'a destination that refuses what it is running',
    {
      Taking: class extends Taking {
        override refuse(): void {
          this.state = 'refused';
        }
      },
    },
    /may run/,
  ],
];

describe('the check finds', () => {
  test.each(mistakes)('%s', { timeout: 120_000 }, (_, mistaken, what) => {
    const wrong =
      check({ ...machines, ...mistaken }, { ...QUIET, breaks: 1, destinationDeaths: 1, nodes: 0 }, true).wrong ??
      check({ ...machines, ...mistaken }, ALL, false).wrong;
    expect(wrong?.what).toMatch(what);
    expect(wrong!.events.length).toBeGreaterThan(3);
  });
});
