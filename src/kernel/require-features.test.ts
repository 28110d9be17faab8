import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NODE_FEATURES, orMissingFeature, requireFeatures } from './require-features.ts';
import type { KernelFeatures } from './types.ts';

const all: KernelFeatures = {
  release: '6.1.0',
  has: Object.fromEntries(NODE_FEATURES.map((name) => [name, true])),
};
const without: KernelFeatures = { ...all, has: { ...all.has, nft_fib: false, veth: false } };

test('what is missing is named, with what to build', () => {
  requireFeatures(all, NODE_FEATURES);
  assert.throws(() => requireFeatures(without, NODE_FEATURES), {
    code: 'WEFT_KERNEL_FEATURE_MISSING',
    message: 'Linux 6.1.0 lacks veth (CONFIG_VETH), nft_fib (CONFIG_NFT_FIB_INET)',
  });
});

test('a failure is explained by a missing feature, or stays what it is', async () => {
  const error = new Error('No such file or directory');
  const explained = await orMissingFeature({ features: async () => without }, NODE_FEATURES, error);
  assert.match(String(explained), /lacks veth/);
  assert.equal((explained as Error).cause, error);
  assert.equal(await orMissingFeature({ features: async () => all }, NODE_FEATURES, error), error);
  const broken = { features: () => Promise.reject(new Error('no probing here')) };
  assert.equal(await orMissingFeature(broken, NODE_FEATURES, error), error);
});
