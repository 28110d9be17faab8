/**
 * Keeps table `inet weft` of a namespace as the filter says. What is there is listed and compared with what nft itself
 * makes of the desired text (in a namespace that is thrown away), so an agent that starts adopts an equal table and touches
 * nothing.
 *
 *   structure differs → the whole table is replaced in one transaction
 *   elements differ   → those elements, in one transaction
 */
import { randomBytes } from 'node:crypto';
import type { Logger } from '../../base/log.ts';
import type { NsPath } from '../../base/net-objects.ts';
import type { Kernel } from '../../kernel/types.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';
import { type ListedTable, readListing, structuralDifferences } from './listing.ts';
import { elementsText, FILTER_TABLE, type NodeTable, renderNodeFilter, replacementText } from './node-filter.ts';

export interface FilterDrift {
  /** One clause: what was not as it should be. */
  message: string;
}

type FilterKernel = Pick<Kernel, 'nftApply' | 'nftList' | 'netnsCreate' | 'netnsDelete'>;

export class NodeFilterReconciler {
  readonly #kernel: FilterKernel;
  readonly #ns: NsPath;
  readonly #log: Logger;
  #desired: NodeTable | undefined;
  #expected: { structure: string; table: ListedTable } | undefined;

  constructor(kernel: FilterKernel, ns: NsPath, logger: Logger) {
    this.#kernel = kernel;
    this.#ns = ns;
    this.#log = logger;
  }

  /** Make this the filter. What was different, in words; empty when nothing was. @throws WEFT_NFT_REJECTED */
  async apply(filter: NodeFilter): Promise<{ changed: string[] }> {
    const desired = renderNodeFilter(filter);
    const changed = await this.#converge(desired);
    this.#desired = desired;
    if (changed.length > 0) this.#log.info({ changed }, 'node filter brought up to date');
    return { changed };
  }

  /** Compare with what was last applied and put right what somebody else changed. @throws WEFT_NFT_REJECTED */
  async verify(): Promise<FilterDrift[]> {
    if (!this.#desired) return [];
    return (await this.#converge(this.#desired)).map((message) => ({ message: `nftables ${FILTER_TABLE}: ${message}` }));
  }

  /** Remove the table. No error when it is not there. */
  async remove(): Promise<void> {
    this.#desired = undefined;
    await this.#kernel.nftApply(this.#ns, `add table ${FILTER_TABLE}\ndelete table ${FILTER_TABLE}\n`);
  }

  async #converge(desired: NodeTable): Promise<string[]> {
    const listing = await this.#kernel.nftList(this.#ns, `table ${FILTER_TABLE}`);
    if (!listing) {
      await this.#kernel.nftApply(this.#ns, replacementText(desired));
      return ['the table was missing'];
    }
    const found = readListing(listing);
    const differences = structuralDifferences(found, await this.#expect(desired.structure));
    if (differences.length > 0) {
      await this.#kernel.nftApply(this.#ns, replacementText(desired));
      return differences;
    }
    const words: string[] = [];
    let text = '';
    for (const { name, elements } of desired.sets) {
      const have = new Set(found.sets.get(name)?.elements);
      const missing = elements.filter((element) => !have.delete(element));
      const extra = [...have];
      // Removed first: an interval that replaces another may overlap it.
      text += elementsText('delete', name, extra) + elementsText('add', name, missing);
      if (missing.length > 0) words.push(`set ${name} lacked ${summary(missing)}`);
      if (extra.length > 0) words.push(`set ${name} had ${summary(extra)} too many`);
    }
    if (text) await this.#kernel.nftApply(this.#ns, text);
    return words;
  }

  /** What nft lists after having been given the desired text. */
  async #expect(structure: string): Promise<ListedTable> {
    if (this.#expected?.structure !== structure) {
      const scratch = `/run/netns/weft-scratch-${process.pid}-${randomBytes(3).toString('hex')}`;
      await this.#kernel.netnsCreate(scratch);
      try {
        await this.#kernel.nftApply(scratch, structure);
        const listing = await this.#kernel.nftList(scratch, `table ${FILTER_TABLE}`);
        this.#expected = { structure, table: readListing(listing ?? { nftables: [] }) };
      } finally {
        await this.#kernel.netnsDelete(scratch);
      }
    }
    return this.#expected.table;
  }
}

function summary(elements: string[]): string {
  return elements.length <= 3 ? elements.join(', ') : `${elements.slice(0, 2).join(', ')} and ${elements.length - 2} more`;
}
