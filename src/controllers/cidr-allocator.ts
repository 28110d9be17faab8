/** Cuts one cluster CIDR into equal blocks, one per owner, around whatever was claimed by hand. Pure; no I/O. */
import { WeftError } from '../base/errors.ts';
import { bigIntToIp, type Cidr, canonicalCidr, cidrOverlaps, ipToBigInt, parseCidr } from '../base/ip.ts';

interface Claim {
  owner: string;
  cidr: Cidr;
  /** Blocks that it touches, both inclusive. */
  first: number;
  last: number;
}

export class CidrAllocator {
  /** Canonical. */
  readonly clusterCidr: Cidr;
  /** Prefix length of a block. */
  readonly blockLength: number;
  /** How many blocks there are. */
  readonly capacity: number;
  readonly #base: bigint;
  readonly #family: 4 | 6;
  /** How many address bits a block has. */
  readonly #shift: bigint;
  /** By `first`. Claims made by hand may overlap; blocks given never do. */
  readonly #claims: Claim[] = [];
  #cursor = 0;

  /** @throws WEFT_BAD_ADDRESS, or WEFT_BAD_CONFIG when blocks of that length cannot be cut from the CIDR */
  constructor(clusterCidr: Cidr, blockLength: number) {
    const { family, length, network } = parseCidr(clusterCidr);
    const bits = family === 4 ? 32 : 128;
    this.clusterCidr = canonicalCidr(clusterCidr);
    if (!Number.isInteger(blockLength) || blockLength < length || blockLength > bits) {
      throw new WeftError(
        'WEFT_BAD_CONFIG',
        `node mask /${blockLength} does not fit cluster CIDR ${this.clusterCidr}: it must be ${length} to ${bits}`,
      );
    }
    if (blockLength - length > 48) {
      throw new WeftError(
        'WEFT_BAD_CONFIG',
        `node mask /${blockLength} cuts ${this.clusterCidr} into more than 2^48 blocks`,
      );
    }
    this.blockLength = blockLength;
    this.capacity = 2 ** (blockLength - length);
    this.#family = family;
    this.#base = ipToBigInt(network);
    this.#shift = BigInt(bits - blockLength);
  }

  /** Blocks that are claimed, in whole or in part. */
  get used(): number {
    let used = 0;
    let next = 0;
    for (const { first, last } of this.#claims) {
      if (last < next) continue;
      used += last - Math.max(first, next) + 1;
      next = last + 1;
    }
    return used;
  }

  cidrsOf(owner: string): Cidr[] {
    return this.#claims.filter((claim) => claim.owner === owner).map((claim) => claim.cidr);
  }

  /** Whether the CIDR has anything to do with this cluster CIDR. */
  covers(cidr: Cidr): boolean {
    return cidrOverlaps(this.clusterCidr, cidr);
  }

  /**
   * Take note of a CIDR that `owner` has already. Returns the others whose claims overlap it: it is noted all the same,
   * as nothing here can take it away. Nothing is noted of a CIDR outside of the cluster CIDR.
   * @throws WEFT_BAD_ADDRESS
   */
  claim(owner: string, cidr: Cidr): string[] {
    if (!this.covers(cidr)) return [];
    const { network, length } = parseCidr(cidr);
    const start = ipToBigInt(network) - this.#base;
    const size = 1n << BigInt((this.#family === 4 ? 32 : 128) - length);
    const first = start < 0n ? 0 : Number(start >> this.#shift);
    const last = start < 0n ? this.capacity - 1 : Number((start + size - 1n) >> this.#shift);
    const claim = { owner, cidr: canonicalCidr(cidr), first, last: Math.min(last, this.capacity - 1) };
    const others = new Set<string>();
    for (const other of this.#claims) {
      if (other.first > claim.last) break;
      if (other.last >= claim.first && other.owner !== owner && cidrOverlaps(other.cidr, claim.cidr)) {
        others.add(other.owner);
      }
    }
    this.#insert(claim);
    return [...others];
  }

  /**
   * Give `owner` a block that nobody has a claim in: the next one after that given or claimed last, so that a block
   * given back rests as long as possible. Undefined when there is none.
   */
  allocate(owner: string): Cidr | undefined {
    const block = this.#gap(this.#cursor) ?? this.#gap(0);
    if (block === undefined) return undefined;
    const address = bigIntToIp(this.#base + (BigInt(block) << this.#shift), this.#family);
    const cidr = `${address}/${this.blockLength}`;
    this.#insert({ owner, cidr, first: block, last: block });
    return cidr;
  }

  /** Give back all that `owner` has; whether it had anything. */
  release(owner: string): boolean {
    const before = this.#claims.length;
    for (let i = before - 1; i >= 0; i--) if (this.#claims[i]!.owner === owner) this.#claims.splice(i, 1);
    return this.#claims.length < before;
  }

  /** The first free block from `from` on. */
  #gap(from: number): number | undefined {
    let candidate = from;
    for (const { first, last } of this.#claims) {
      if (last < candidate) continue;
      if (first > candidate) break;
      candidate = last + 1;
    }
    return candidate < this.capacity ? candidate : undefined;
  }

  #insert(claim: Claim): void {
    let low = 0;
    let high = this.#claims.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#claims[middle]!.first <= claim.first) low = middle + 1;
      else high = middle;
    }
    this.#claims.splice(low, 0, claim);
    this.#cursor = (claim.last + 1) % this.capacity;
  }
}
