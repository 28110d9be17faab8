/**
 * Brings the node's base tables to what the fabric desires, and keeps them there.
 *
 * Whatever is in the kernel is compared object by object with the desired tables, and only what differs is changed: a
 * restart of the agent changes nothing, a node that joins is one set element, and what somebody else did is put right
 * without touching the rest. Structure is compared with what the same nft makes of the desired ruleset in a namespace of its
 * own, so that no version's way of listing matters.
 */
import { isWeftError, WeftError } from '../../base/errors.ts';
import { parseIp } from '../../base/ip.ts';
import type { Logger } from '../../base/log.ts';
import type { NsPath } from '../../base/net-objects.ts';
import type { Kernel, NftElementChange, Op } from '../../kernel/types.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';
import { compareTables, type Drift, type SetDelta, type TableDifference } from './compare-tables.ts';
import { type FilterTable, renderTable, tableName } from './filter-table.ts';
import { type ListedTable, readListing } from './listed-table.ts';
import { nodeFilterTables } from './node-filter.ts';

export type { Drift } from './compare-tables.ts';

/** Between the look and the change somebody else may have changed something; then we look again. */
const ATTEMPTS = 4;

export interface FilterCount {
  /** `inet weft forged_source`. */
  counter: string;
  packets: number;
  bytes: number;
}

export class NodeFilterReconciler {
  readonly #kernel: Kernel;
  readonly #ns: NsPath;
  readonly #logger: Logger;
  /** Structure text → the listing nft makes of it. */
  readonly #templates = new Map<string, ListedTable>();
  #desired: FilterTable[] = [];
  /** One look-and-change at a time. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(kernel: Kernel, ns: NsPath, logger: Logger) {
    this.#kernel = kernel;
    this.#ns = ns;
    this.#logger = logger;
  }

  /**
   * Make the tables equal to `filter`; may be called any number of times with the same value. `changed` says in words what
   * had been otherwise; empty when nothing had.
   *
   * @throws WEFT_NFT_REJECTED, WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS, WEFT_KERNEL_FEATURE_MISSING
   */
  apply(filter: NodeFilter): Promise<{ changed: string[] }> {
    const desired = nodeFilterTables(filter);
    return this.#alone(async () => {
      this.#desired = desired;
      const changed: string[] = [];
      for (const table of desired) changed.push(...(await this.#bring(table)));
      return { changed };
    });
  }

  /** How the kernel differs from what was applied last; changes nothing. */
  verify(): Promise<Drift[]> {
    return this.#alone(async () => {
      const drifts: Drift[] = [];
      for (const table of this.#desired) drifts.push(...(await this.#compare(table)).drifts);
      return drifts;
    });
  }

  /** The named counters: what was dropped, and why. Empty while the tables do not exist. */
  async counters(): Promise<FilterCount[]> {
    const counts: FilterCount[] = [];
    for (const name of this.#desired.map(tableName)) {
      for (const [counter, { packets, bytes }] of (await this.#list(name))?.counters ?? []) {
        counts.push({ counter: `${name} ${counter}`, packets, bytes });
      }
    }
    return counts;
  }

  /** Remove the tables, when the node leaves the network for good. Absent ones are no error. */
  remove(): Promise<void> {
    return this.#alone(async () => {
      const names = ['inet weft', 'arp weft'];
      this.#desired = [];
      // `add` makes the deletion of an absent table no error, in one transaction.
      const commands = names.map((name) => `add table ${name}\ndelete table ${name}\n`).join('');
      await this.#kernel.nftApply(this.#ns, commands);
    });
  }

  /** Wait for what is under way. The tables stay: a stopped agent drops no traffic. */
  async close(): Promise<void> {
    await this.#last;
  }

  #alone<T>(fn: () => Promise<T>): Promise<T> {
    const result = this.#last.then(fn);
    this.#last = result.catch(() => {});
    return result;
  }

  async #bring(table: FilterTable): Promise<string[]> {
    for (let attempt = 1; ; attempt++) {
      const difference = await this.#compare(table);
      if (difference.drifts.length === 0) return [];
      try {
        // The last resort is the whole table anew.
        if (attempt < ATTEMPTS) await this.#change(table, difference);
        else await this.#replace(table);
        return difference.drifts.map(({ message }) => message);
      } catch (error) {
        if (!isWeftError(error, 'WEFT_NFT_REJECTED') || attempt === ATTEMPTS) throw error;
        this.#logger.info(
          { table: tableName(table), attempt, err: error.message },
          'cannot be changed like this',
        );
      }
    }
  }

  #replace(table: FilterTable): Promise<void> {
    const name = tableName(table);
    return this.#kernel.nftApply(
      this.#ns,
      `add table ${name}\ndelete table ${name}\n${renderTable(table, { elements: true })}`,
    );
  }

  async #change(table: FilterTable, { commands, deltas }: TableDifference): Promise<void> {
    if (commands !== '') await this.#kernel.nftApply(this.#ns, commands);
    const ops: Op[] = deltas.flatMap((delta) => elementOps(table, delta));
    if (ops.length > 0) await this.#kernel.must([{ ns: this.#ns, ops }]);
  }

  async #compare(table: FilterTable): Promise<TableDifference> {
    const template = await this.#template(table);
    return compareTables(table, template, await this.#list(tableName(table)));
  }

  async #list(name: string): Promise<ListedTable | undefined> {
    const listing = await this.#kernel.nftList(this.#ns, `table ${name}`);
    return listing && readListing(listing).get(name);
  }

  async #template(table: FilterTable): Promise<ListedTable> {
    const text = renderTable(table, { elements: false });
    const known = this.#templates.get(text);
    if (known) return known;
    const name = tableName(table);
    const template = readListing(await this.#kernel.nftRender(text, `table ${name}`)).get(name);
    if (!template)
      throw new WeftError('WEFT_INTERNAL', `nft does not list the table ${name} it has just made`);
    this.#templates.set(text, template);
    return template;
  }
}

function elementOps(table: FilterTable, { set, missing, extra }: SetDelta): Op[] {
  const change = (action: 'add' | 'delete', ips: string[]): Op[] => {
    if (ips.length === 0) return [];
    const value: NftElementChange = {
      family: table.family,
      table: table.name,
      set: set.name,
      action,
      elements: ips.map((ip) => ({ key: parseIp(ip) })),
    };
    return [{ op: 'nft.elements', change: value }];
  };
  return [...change('delete', extra), ...change('add', missing)];
}
