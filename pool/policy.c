/* Policies by name: plain, mirror2, mirror3, ec:K+M; and whether a pool can follow one. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/pool_int.h"
#include "pool/segment_format.h"

/* One or two digits; NULL if there are none. */
static const char *read_number(const char *text, uint32_t *number)
{
	const char *at = text;

	for (*number = 0; *at >= '0' && *at <= '9' && at < text + 2; at++)
		*number = *number * 10 + (uint32_t)(*at - '0');
	return at > text ? at : NULL;
}

bool policy_from_text(const char *text, struct policy *policy)
{
	uint32_t k = 1, m = 0;

	if (strcmp(text, "mirror2") == 0 || strcmp(text, "mirror3") == 0) {
		m = (uint32_t)(text[6] - '1');
	} else if (strncmp(text, "ec:", 3) == 0) {
		text = read_number(text + 3, &k);
		text = text && *text == '+' ? read_number(text + 1, &m) : NULL;
		if (!text || *text || k < 2 || m < 1 || k + m > SEGMENT_COLS_MAX)
			return false;
	} else if (strcmp(text, "plain") != 0) {
		return false;
	}
	*policy = (struct policy){ (uint8_t)k, (uint8_t)m };
	return true;
}

char *policy_to_text(struct policy policy, char text[POLICY_TEXT_BYTES])
{
	if (policy.k > 1)
		snprintf(text, POLICY_TEXT_BYTES, "ec:%u+%u", policy.k, policy.m);
	else if (policy.m > 0)
		snprintf(text, POLICY_TEXT_BYTES, "mirror%u", policy.m + 1u);
	else
		snprintf(text, POLICY_TEXT_BYTES, "plain");
	return text;
}

int pool_use_policy(struct pool *pool, struct policy policy)
{
	int ret = rows_prepare(pool, policy);

	if (!ret && policy.m > pool->losses_max)
		pool->losses_max = policy.m;
	if (!ret && (uint32_t)policy.k + policy.m > pool->cols_max)
		pool->cols_max = policy.k + policy.m;
	return ret;
}

void pool_put_policy_in(struct pool *pool, struct policy policy, struct cat_txn *txn)
{
	const struct cat_obj *obj = catalog_get(pool->catalog, CAT_POOL, 0);
	const struct pool_payload *now = obj ? obj->data : NULL;
	struct pool_payload payload = { .losses_max = le32_of(policy.m) };

	if (policy.m > (now ? le32_get(now->losses_max) : 0))
		cat_put(txn, CAT_POOL, 0, &payload, sizeof(payload));
}

int pool_check_policy(const struct pool *pool, struct policy policy, struct err *err)
{
	uint32_t need = policy.k + policy.m, in_use = zones_disks_in_use(&pool->zones);
	char text[POLICY_TEXT_BYTES];

	if (!policy_is_valid(policy))
		return err_set(err, -EINVAL, "a policy has 1 to %d disks", SEGMENT_COLS_MAX);
	if (in_use < need)
		return err_set(err, -ENODEV, "policy %s needs %u disks, but pool '%s' has %u in use",
			       policy_to_text(policy, text), need, pool->name, in_use);
	return 0;
}
