# What R says to small examples: written to statistics.json, which tests/statistics/test_statistics_against_r.py compares with.
#
#   Rscript tests/statistics/reference/statistics.R > tests/statistics/reference/statistics.json
#
# Needs R with the packages clubSandwich (CR2 errors), lme4 (mixed models) and jsonlite.
suppressMessages({library(clubSandwich); library(jsonlite); library(lme4)})

discordant <- list(c(7, 1), c(1, 7), c(5, 5), c(0, 9), c(23, 8), c(61, 38), c(140, 101))
mcnemar <- lapply(discordant, function(pair) list(
  gained = pair[1], lost = pair[2], p = binom.test(pair[1], sum(pair), 0.5)$p.value))

p <- c(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1)
corrections <- list(p = p, holm = p.adjust(p, "holm"), bh = p.adjust(p, "BH"))

wilson <- lapply(list(c(0, 20), c(3, 40), c(50, 100), c(199, 200)), function(pair) {
  bounds <- suppressWarnings(prop.test(pair[1], pair[2], correct = FALSE))$conf.int
  list(right = pair[1], items = pair[2], low = bounds[1], high = bounds[2])})

# Sleep data of Student 1908 (in R as `sleep`): ten patients' gain of the second drug over the first.
gain <- with(sleep, extra[group == 2] - extra[group == 1])
signs <- as.matrix(expand.grid(rep(list(c(1, -1)), length(gain))))
t_test <- t.test(gain)
plain <- list(
  difference = gain, mean = mean(gain), low = t_test$conf.int[1], high = t_test$conf.int[2],
  flips_p = mean(abs(signs %*% gain) >= abs(sum(gain)) - 1e-9))

# Weight of chicks on the 12th day (in R as `ChickWeight`), less 110 g, in clusters of unequal size.
chicks <- subset(ChickWeight, Time == 12)
values <- chicks$weight - 110
clusters <- rep(1:9, c(14, 9, 7, 6, 5, 3, 2, 2, 1))
weights <- rep(c(3, 1, 4, 1, 5, 9, 2), 7)
cases <- list(unweighted = list(rep(1, 49), clusters), weighted = list(weights, clusters), alone = list(weights, 1:49))
clustered <- lapply(cases, function(case) {
  w <- case[[1]]
  clusters <- case[[2]]
  fit <- lm(values ~ 1, weights = w)
  found <- coef_test(fit, vcov = "CR2", cluster = clusters, test = "Satterthwaite")
  bounds <- conf_int(fit, vcov = "CR2", cluster = clusters)
  list(values = values, weights = w, clusters = clusters, mean = found$beta, stderr = found$SE, df = found$df_Satt,
       low = bounds$CI_L, high = bounds$CI_U)})

detectable <- lapply(list(c(12, 0.05), c(60, 0.01), c(200, 0.0005)), function(case) list(
  items = case[1], alpha = case[2], sd = 0.4,
  difference = power.t.test(n = case[1], sd = 0.4, sig.level = case[2], power = 0.8, type = "one.sample",
                            tol = 1e-12)$delta))

# Two settings of three seeds each on the same 14 items, items and seeds crossed: the standard error of
# their difference by restricted maximum likelihood.
set.seed(17)
items <- 14; seeds <- 3
of_item <- rnorm(items, 0, 0.5)
crossed_values <- lapply(1:2, function(arm) {
  of_arm <- rnorm(items, 0, 0.5)
  of_seed <- rnorm(seeds, 0, 0.4)
  t(sapply(1:seeds, function(seed) round(of_item + of_arm + of_seed[seed] + 0.2 * (arm - 1) + rnorm(items, 0, 0.4), 3)))})
long <- do.call(rbind, lapply(1:2, function(arm) data.frame(
  y = as.vector(t(crossed_values[[arm]])), arm = factor(arm), item = factor(rep(1:items, seeds)),
  seed = factor(paste(arm, rep(1:seeds, each = items))))))
fit <- lmer(y ~ arm + (1 | item) + (1 | item:arm) + (1 | seed), data = long,
            control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10)))
crossed <- list(a = crossed_values[[1]], b = crossed_values[[2]], difference = unname(fixef(fit)[2]),
                stderr = sqrt(vcov(fit)[2, 2]))

# The mean of Student's quantiles weighted by variances (Cochran & Cox), and the level that it reaches.
cochran_cox <- lapply(list(list(c(0.04, 0.01), c(99, 2)), list(c(0.001, 0.02, 0.03), c(399, 1, 4))), function(case) {
  variances <- case[[1]]; df <- case[[2]]
  quantile <- function(p) sum(variances * qt(1 - p / 2, df)) / sum(variances)
  observed <- 3.2
  list(variances = variances, df = df, quantile = quantile(0.05), observed = observed * sqrt(sum(variances)),
       p = uniroot(function(p) quantile(p) - observed, c(1e-6, 1), tol = 1e-12)$root)})

# The chance that the exact test finds a difference, by all tables of gains and losses.
mcnemar_power <- lapply(list(c(40, 0.05, 0.3, 0.05), c(100, 0.08, 0.25, 0.01)), function(case) {
  n <- case[1]; lost <- case[2]; gained <- lost + case[3]; alpha <- case[4]
  power <- 0
  for (g in 0:n) for (l in 0:(n - g))
    if (g > l && binom.test(g, g + l, 0.5)$p.value < alpha)
      power <- power + dmultinom(c(g, l, n - g - l), prob = c(gained, lost, 1 - gained - lost))
  list(items = n, against = lost, difference = case[3], alpha = alpha, power = power)})

cat(toJSON(list(
  made_with = list(R = as.character(getRversion()), clubSandwich = as.character(packageVersion("clubSandwich")),
                   lme4 = as.character(packageVersion("lme4"))),
  mcnemar = mcnemar, corrections = corrections, wilson = wilson, plain = plain, clustered = clustered,
  detectable = detectable, crossed = crossed, cochran_cox = cochran_cox, mcnemar_power = mcnemar_power), auto_unbox = TRUE, digits = NA, pretty = TRUE), "\n")
