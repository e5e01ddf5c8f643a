"""Words that name no one by themselves: those of plain English, of logs and of reports on models.

A private value that is made of these alone ("Reading" the town, "Best" the name) is recognised only where it stands
as a whole element, quoted and written as in the table.
"""

from __future__ import annotations

_LIST = """
a about above accept accuracy across action active actual adam add address after again against age agent all allow
also always amount an analysis and android any api app application apply approve approved april are area args argument
array art as ask assert at attempt attribute auc audit august auth author auto average averaged axis azure back bad
balance bank bar base baseline basic batch bath be because been before begin benchmark best beta better between bias
big bin binary blob block blue body book bool boolean both bottom box branch break bucket buffer bug build bundle
business but by bytes cache calibration call can cancel card case cat category cause cell center central change
channel char chart check child city class classes classification classifier clean clear client close cloud code
coefficient col cold collect color column columns command comment commit common company compare complete component
compute condition confidence config configuration confirm connect connection console constant contact container
content context continue contract control copy core correct cost could count country counts cover cpu create created
cross cube current curve custom customer daily data database dataset date day days deal debug december decimal
decision deep default define degree delete delta demo density deploy depth derived describe description design desktop
detail detected dev device did difference digest dim direct directory disabled discovered disk display distance do
docker document does domain done double down download drift drop dtype due duration during each early east edge edit
effect either element else email embedding empty enabled encoded encoder end engine ensure enter entry environment
epoch epochs equal error errors estimator evaluate evaluation event every exact example except exception exclude
execute exist exit expected experiment export extra factor fail failed failure false fast feature features february
field file files fill filter final find fine finish finished first fit fix flag flat float fold folder follow for
force forest forget form format forward found fraction frame free frequency friday from full function further gain
game gate general generate get git give given global go goal good gpu gradient graph great green grid group groups
growth guard had half hall hand handle hard has hash have he head header health heap hello help here hidden hide high
higher hill history hold home host hot hour hours how however html http https human id identity if ignore image import
in include increase index info information init initial input inputs insert inside install instance int integer
interest interface internal interval into invalid is it item items iteration its january job join json july june just
keep kernel key keys kind king know label labels lake land language large last later latest launch layer layers leaf
learning least left length less level library license life light like limit line linear link linux list load loaded
local location lock log logger logging logistic long look loop loss low lower mac machine mail main make male manage
manager manual many map march mark mask master match matrix max maximum may mean measure median medium memory merge
message meta metadata method metric metrics mild mill min minimum minute minutes misc missing mode model models
moderate module moment monday month months more most mouse move ms much multi must my name names national nearest need
negative nested network neural never new next no node none norm normal normalized north not note nothing notice
november now null number numeric object objective october of off offset often old on once one only open operation
operator optimizer option optional or order organization origin original other our out outer outlier output outputs
over overall own package page pair panel parameter parameters parent park parse part partial parts pass passed
password patch path patient patients pattern pause peak penalty pending per percent percentile performance period
person phase phone pid pipeline place plain plan platform please plot plus point points policy pool port portal
position positive possible post power precision predict prediction predictions prefix present preview previous price
primary print prior privacy private probability process processed processing product production profile program
progress project promote property provider public publish pull purpose push put python quality quantile quarter query
question queue quick quiet random range rank rate ratio raw read reader reading ready real reason recall receive
recent record records recover red reduce reference refresh region register registry regression regularization reject
related release relevant remote remove render repeat replace report repository request require required rerun reserve
reset resolve resource response rest restart restore result results resume retry return review rice right risk river
robust role rolling root rose round route row rows rule run runner running runs runtime safe sale same sample samples
saturday save saved scale scaled scaler schedule schema scope score scores script search second seconds section secure
security seed select selected self send sensor sent separate september sequence series server service session set
setting settings setup severe shape share she shell short should show shuffle shutdown side sigma sign signal
signature silent similar simple since single site size skip sleep slice slow small so social soft software some sort
source south space spec special specific speed split spring stable stack stage standard start started starting starts
state statement static statistics status std step steps still stop storage store stream street strict string strong
structure style sub subject submit success such suffix sum summary sunday support switch symbol system table tag tags
target task team temp temperature template tensor test tested testing text than that the their them then there these
they thing this those thread threshold through thursday ticket tie time timeout timer times timestamp title to today
token too tool top total trace track train trained training transform transport tree trees trial true try tuesday tune
type types unable under unique unit units unknown until up update updated upload upper url us usage use used user
using valid validate validation value values variable variance vector version very view virtual visit wait walk wall
ware warn warning was watch way we weather wednesday week weight weights well west what when where which while white
who whole why wide width will wilson window windows with within without wood word work worker workflow workspace world
worst would write writer written wrong year years yellow yes yet you young your zero zone
"""
COMMON = frozenset(_LIST.split())
